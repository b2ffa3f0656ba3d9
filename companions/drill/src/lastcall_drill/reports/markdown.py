"""The matrix as Markdown, for the page of the documentation that shows how released servers do."""

from __future__ import annotations

import re

from lastcall_drill.reports import facts, text
from lastcall_drill.reports.markup import escape
from lastcall_drill.verdicts import Result, Run, ScenarioInfo, ServerInfo, Verdict

REFERENCE = "drill-scenarios.md"
# A word and a shape, so that the verdict is seen at a glance and found by a search.
_CELLS = {
    Verdict.PASS: "✓ pass",
    Verdict.FAIL: "**✗ fail**",
    Verdict.UNSUPPORTED: "\N{EN DASH} unsupported",
    Verdict.ERROR: "**! error**",
    Verdict.UNREACHED: "? unreached",
}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|!~])")


def matrix(run: Run, *, reference: str = REFERENCE) -> str:
    """A line on the run, a table of verdicts for each group, the table of servers. Ends with a newline.

    Each scenario links to its anchor on the page ``reference``.
    """
    found = facts.cells(run)
    parts = [
        f"Run on {_prose(run.date)}, {_prose(run.machine)}, times scaled by {run.scale:g}. "
        + " ".join(f"{_CELLS[one]}: {facts.MEANINGS[one]}." for one in Verdict)
    ]
    for group, scenarios in facts.groups(run):
        parts.append(f"### {_prose(group)}")
        parts.append(_table(run, scenarios, found, reference))
    parts.append("### Servers")
    parts.append(_servers(run, found))
    return "\n\n".join(parts) + "\n"


def _table(run: Run, scenarios: list[ScenarioInfo], found: facts.Cells, reference: str) -> str:
    rows = [["Scenario", "Asked by", *(_heading(one) for one in run.servers)]]
    for one in scenarios:
        basis = "" if one.basis is None else facts.BASES[one.basis]
        rows.append([_link(one, reference), basis, *(_cell(result) for result in facts.row(run, one, found))])
    return _lines(rows)


def _servers(run: Run, found: facts.Cells) -> str:
    rows = [["Server", "Version", "Python", "Verdicts", "Started as"]]
    for one in run.servers:
        tallied = facts.counts(facts.tally_of(run, one, found))
        rows.append([_prose(one.label), _prose(one.version), _prose(one.python), tallied, _code(one.command)])
    return _lines(rows)


def _lines(rows: list[list[str]]) -> str:
    written = [f"| {' | '.join(one)} |" for one in rows]
    return "\n".join([written[0], "|---" * len(rows[0]) + "|", *written[1:]])


def _heading(server: ServerInfo) -> str:
    label = _prose(server.label)
    return label if server.version in server.label else f"{label} {_prose(server.version)}"


def _link(scenario: ScenarioInfo, reference: str) -> str:
    anchor = re.sub(r"[^A-Za-z0-9._-]", "-", scenario.id)
    return f"[{_prose(scenario.title)}]({reference}#{anchor})"


def _cell(result: Result | None) -> str:
    if result is None:
        return "not run"
    recorded = f" (recorded: {result.expected.value})" if facts.unexpected(result) and result.expected else ""
    return _CELLS[result.verdict] + recorded


def _prose(words: str) -> str:
    """Words that Markdown and the HTML inside it leave alone."""
    return _SPECIAL.sub(r"\\\1", escape(text.one_line(words)).replace("&#x27;", "'").replace("&quot;", '"'))


def _code(words: str) -> str:
    """A code span in a table's cell; the fence is longer than any run of backticks within."""
    inner = text.one_line(words).replace("|", "\\|")
    if not inner:
        return ""
    fence = "`" * (1 + max((len(one) for one in re.findall("`+", inner)), default=0))
    space = " " if "`" in inner else ""
    return f"{fence}{space}{inner}{space}{fence}"

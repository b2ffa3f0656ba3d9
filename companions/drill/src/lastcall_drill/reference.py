"""The reference page of scenarios, made from their files: ``python -m lastcall_drill.reference``.

Writes ``docs/reference/drill-scenarios.md`` (or the file named on the command line). A test compares the committed page
with :func:`page`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lastcall_drill.reports.facts import BASES
from lastcall_drill.runner import FEATURES
from lastcall_drill.scenario import GROUPS, Scenario, scenarios

PAGE: Final = Path("docs", "reference", "drill-scenarios.md")

_HEAD: Final = """\
<!-- Made by `python -m lastcall_drill.reference` from companions/drill/src/lastcall_drill/scenarios/. Do not edit. -->

# Scenarios of the drill

What [`lastcall drill`](drill.md) asks of a server, one heading for each scenario, which is its id. {count} of them;
`lastcall drill --list` has the same list.

- **Clause**: the words that ask for it, of a standard, of the server itself, or of whoever supervises it.
- **Asked by**: a *standard* (a specification says so), a *supervisors' need* (no specification binds a server to it,
  but whoever starts, counts and kills processes depends on it), or *our view* of what an option or its user wants.
- **Reason**: what happens to whom where it is not done.
- **Rule**: what is done, and what has to be seen for a pass. Times are seconds since the signal; `--scale` makes all of
  them longer.
- **Tolerance**: how much later than the rule says is still a pass.
- **Needs**: features without which the verdict is "unsupported" ([what they are](drill.md#features)).
- **Sources**: where it has been seen in the wild. What has none has been seen while servers were read and tried for
  this list.

"""
_ISSUE: Final = re.compile(r"([\w.-]+/[\w.-]+)#(\d+)", re.ASCII)
_SPECIAL: Final = re.compile(r"([\\`*_<\[\]|])")


def page() -> str:
    """Return the whole page as Markdown."""
    parts = [_HEAD.format(count=len(scenarios())), "| scenario | asks for |\n|---|---|\n"]
    parts += [f"| [{one.id}](#{one.id}) | {_prose(one.info.title)} |\n" for one in scenarios()]
    for group in GROUPS:
        parts.append(f"\n## {group}\n")
        parts += [_section(one) for one in scenarios() if one.info.group == group]
    return "".join(parts)


def main(arguments: list[str]) -> None:
    """Write the page to the file named by the first argument, or to its place below the current directory."""
    Path(arguments[0] if arguments else PAGE).write_text(page(), encoding="utf-8")


def _section(one: Scenario) -> str:
    info = one.info
    basis = "" if info.basis is None else BASES[info.basis]
    said = {
        "Clause": info.clause,
        "Asked by": basis,
        "Reason": info.reason,
        "Rule": info.rule,
        "Tolerance": info.tolerance,
    }
    lines = [f"- **{name}**: {_prose(words)}" for name, words in said.items()]
    if one.needs:
        lines.append(f"- **Needs**: {_prose(', '.join(FEATURES[name] for name in sorted(one.needs)))}")
    if info.sources:
        lines.append(f"- **Sources**: {'; '.join(_sources(info.sources))}")
    return f"\n### {one.id}\n\n{_prose(info.title)}.\n\n" + "\n".join(lines) + "\n"


def _sources(sources: Iterable[str]) -> Iterable[str]:
    for one in sources:
        if issue := _ISSUE.fullmatch(one):
            yield f"[{one}](https://github.com/{issue[1]}/issues/{issue[2]})"
        elif one.startswith("https://"):
            yield f"<{one}>"
        else:
            yield _prose(one)


def _prose(words: str) -> str:
    return _SPECIAL.sub(r"\\\1", words)


if __name__ == "__main__":
    main(sys.argv[1:])

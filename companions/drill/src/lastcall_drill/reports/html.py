"""The report as one page: a matrix of verdicts, and behind each cell what was seen, with a drawing of the moments.

The page loads nothing, and its content security policy forbids it: style and script are inline, allowed by hash.
Without JavaScript each cell leads to its ``details`` element further down; with it, the matrix is an ARIA grid that
opens a panel. Everything that comes from outside passes through ``markup``, and the same run gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from urllib.parse import quote

from lastcall_drill.reports import drawing, facts, text
from lastcall_drill.reports.markup import Markup, join, raw, tag
from lastcall_drill.verdicts import Result, Run, ScenarioInfo, ServerInfo, Verdict

# Chosen before the page is drawn, so that it does not flash.
_EARLY_SCRIPT = (
    "document.documentElement.className='js';"
    "try{const theme=localStorage.getItem('drill-theme');if(theme)document.documentElement.dataset.theme=theme}catch{}"
)
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='7' fill='%231f7a4d'/%3E"
    "%3Cpath d='M4.5 8.2l2.4 2.4 4.6-5' fill='none' stroke='white' stroke-width='1.8'/%3E%3C/svg%3E"
)
# Verdicts differ in shape and word as well as in colour.
_SHAPES = {
    Verdict.PASS: '<circle cx="8" cy="8" r="7"/><path d="M4.6 8.3l2.3 2.3 4.5-4.9"/>',
    Verdict.FAIL: '<path d="M8 .6l7.4 7.4L8 15.4.6 8z"/><path d="M5.7 5.7l4.6 4.6m0-4.6l-4.6 4.6"/>',
    Verdict.UNSUPPORTED: '<circle cx="8" cy="8" r="6.2"/><path d="M5 8h6"/>',
    Verdict.UNREACHED: '<circle cx="8" cy="8" r="6.2"/><path d="M6 6.4a2 2 0 1 1 2.6 1.9L8 9.6m0 1.4v1"/>',
    Verdict.ERROR: '<path d="M8 1l7.4 13.4H.6z"/><path d="M8 5.8v4m0 1.6v1.4"/>',
}
_MOST_ROWS = 160  # of one table of moments
_NAME = "=+@:,"  # left as they are in a fragment; a slash is not, it separates server and scenario


def write(run: Run) -> str:
    """The page."""
    style, script = _asset("page.css"), _asset("page.js")
    found = facts.cells(run)
    title = "How ASGI servers stop" if len(run.servers) > 1 else "How an ASGI server stops"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content="lastcall drill"),
        tag("title", f"{title} \N{EN DASH} lastcall drill"),
        tag("link", rel="icon", href=_ICON),
        tag("style", style),
        tag("script", raw(_EARLY_SCRIPT)),
    )
    body = tag(
        "body",
        tag("a", "Skip to the matrix", class_="skip", href="#matrix"),
        _header(run, title),
        tag(
            "main",
            _controls(run),
            _matrix(run, found),
            _legend(),
            _results(run, found),
            _servers(run, found),
        ),
        _footer(),
        _panel(),
        tag("script", script),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def anchor(server: str, scenario: str) -> str:
    """The fragment of one cell, which is also its element's id: ``server/scenario``, both percent-encoded."""
    return f"{_quoted(server)}/{_quoted(scenario)}"


def _quoted(name: str) -> str:
    return quote(name, safe=_NAME, errors="replace")


def _asset(name: str) -> Markup:
    return raw(resources.files("lastcall_drill.reports").joinpath(name).read_text("utf-8"))


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(_EARLY_SCRIPT)} {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _header(run: Run, title: str) -> Markup:
    date = text.one_line(run.date)
    about = (
        ("Run", tag("time", re.sub(r"^([\d-]{10})T([\d:]{8}).*", r"\1 \2 UTC", date), datetime=date)),
        ("Machine", text.one_line(run.machine)),
        ("Time scale", f"\N{MULTIPLICATION SIGN}{run.scale:g}"),
    )
    size = f"{text.counted(len(run.servers), 'server')}, {text.counted(len(run.scenarios), 'scenario')}"
    return tag(
        "header",
        tag("div", tag("p", "lastcall drill"), tag("button", "Theme", type="button", id="theme"), class_="kicker"),
        tag("h1", title),
        tag(
            "p",
            f"{size}. Each server is started on the same small application, is sent a signal while it is at work, and "
            "is watched from outside. Open a cell to see what happened, moment by moment.",
            class_="lead",
        ),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in about), class_="run"),
    )


def _badge(verdict: Verdict) -> Markup:
    shape = tag("svg", raw(_SHAPES[verdict]), viewBox="0 0 16 16", class_="shape", aria_hidden="true")
    return tag("span", shape, tag("span", verdict.value, class_="word"), class_=f"badge {verdict.value}")


def _controls(run: Run) -> Markup:
    chips = [
        tag("button", _badge(verdict), type="button", aria_pressed="false", data_verdict=verdict.value)
        for verdict in Verdict
    ]
    options = [tag("option", "all groups", value="")]
    options += [tag("option", name, value=str(number)) for number, (name, _) in enumerate(facts.groups(run))]
    return tag(
        "div",
        tag(
            "div",
            tag("span", "Verdict", id="by-verdict"),
            *chips,
            class_="chips",
            role="group",
            aria_labelledby="by-verdict",
        ),
        tag("label", "Group ", tag("select", *options, id="by-group")),
        tag("label", tag("input", type="checkbox", id="by-difference"), " Only differences"),
        tag("span", "", id="shown", role="status"),
        class_="controls",
        role="group",
        aria_label="Filters",
    )


def _matrix(run: Run, found: facts.Cells) -> Markup:
    heads = [tag("th", "Scenario", scope="col", class_="corner")]
    heads += [tag("th", *_column(run, one, found), scope="col") for one in run.servers]
    parts = [tag("thead", tag("tr", *heads))]
    for number, (group, scenarios) in enumerate(facts.groups(run)):
        heading = tag("th", tag("span", group), colspan=str(len(run.servers) + 1), scope="colgroup")
        rows = [_row(run, one, found) for one in scenarios]
        parts.append(tag("tbody", tag("tr", heading, class_="group"), *rows, data_group=str(number)))
    size = next((name for most, name in ((5, "few"), (9, "some")) if len(run.servers) <= most), "many")
    table = tag("table", *parts, id="matrix", aria_label="Verdicts: a row for each scenario, a column for each server")
    return tag("div", table, class_=f"sheet {size}")


def _column(run: Run, server: ServerInfo, found: facts.Cells) -> list[Markup]:
    tallied = facts.tally_of(run, server, found)
    judged = tallied[Verdict.PASS] + tallied[Verdict.FAIL]
    # NAME==VERSION takes two lines, as the others do.
    label = server.name if server.label == f"{server.name}=={server.version}" else server.label
    return [
        tag("span", label, class_="server"),
        tag("span", server.version, class_="version"),
        tag("span", tag("b", str(tallied[Verdict.PASS])), f" of {judged}", class_="score"),
        _bar(tallied[Verdict.PASS], judged),
    ]


def _bar(passed: int, judged: int) -> Markup:
    share = 100 * passed / judged if judged else 0
    rects = [tag("rect", width="100", height="3", class_="all")] if judged else []
    rects.append(tag("rect", width=f"{share:.1f}", height="3", class_="passed"))
    return tag("svg", *rects, viewBox="0 0 100 3", preserveAspectRatio="none", class_="bar", aria_hidden="true")


def _row(run: Run, scenario: ScenarioInfo, found: facts.Cells) -> Markup:
    results = facts.row(run, scenario, found)
    name = tag(
        "a",
        tag("span", scenario.title, class_="title"),
        tag("span", scenario.id, class_="id"),
        href=f"#scenario:{_quoted(scenario.id)}",
        class_="scenario cell",
    )
    cells = [tag("td", _cell(server, one)) for server, one in zip(run.servers, results, strict=True)]
    return tag(
        "tr",
        tag("th", name, scope="row"),
        *cells,
        data_verdicts=" ".join(verdict.value for verdict in Verdict if facts.tally(results)[verdict]),
        data_differs=facts.differs(results),
    )


def _cell(server: ServerInfo, result: Result | None) -> Markup:
    if result is None:
        return tag("span", "not run", class_="cell none")
    notes = []
    end = facts.end_of(result)
    if end is not None:
        notes.append(tag("span", ("> " if end.killed else "") + text.duration(end.after), class_="after"))
    if result.tries > 1:
        notes.append(tag("span", f"try {result.tries}", class_="note"))
    if facts.unexpected(result):
        notes.append(tag("span", "not as recorded", class_="note news"))
    spoken = tag("span", f", {server.label}. ", class_="spoken")
    return tag(
        "a",
        _badge(result.verdict),
        spoken,
        tag("span", *(join(" ", one) for one in notes), class_="notes"),
        href=f"#{anchor(result.server, result.scenario)}",
        class_=f"cell {result.verdict.value}",
        data_verdict=result.verdict.value,
    )


def _legend() -> Markup:
    meanings = [tag("li", _badge(one), " ", tag("span", facts.MEANINGS[one])) for one in Verdict]
    figures = (("0.31 s", "from the signal to the exit (> if killed)"), ("8 of 10", "passed, of those judged"))
    meanings += [tag("li", tag("span", one, class_="after"), " ", tag("span", said)) for one, said in figures]
    keys = tag(
        "p",
        "In the matrix: ",
        *(join(tag("kbd", key), " ") for key in ("←", "↑", "→", "↓", "Home", "End")),
        "move, ",
        tag("kbd", "Enter"),
        " opens, ",
        tag("kbd", "Esc"),
        " closes. The address of an open cell can be shared.",
        class_="keys",
    )
    return tag("div", tag("ul", *meanings), keys, class_="legend")


def _results(run: Run, found: facts.Cells) -> Markup:
    parts = [tag("h2", "Every result")]
    for number, (group, scenarios) in enumerate(facts.groups(run)):
        sections = [_scenario(run, one, found) for one in scenarios]
        parts.append(tag("div", tag("h3", group, class_="group"), *sections, data_group=str(number)))
    return tag("section", *parts, class_="results")


def _scenario(run: Run, scenario: ScenarioInfo, found: facts.Cells) -> Markup:
    about = [
        ("Clause", scenario.clause),
        ("Asked by", facts.BASES[scenario.basis] if scenario.basis else ""),
        ("Why it matters", scenario.reason),
        ("Rule", scenario.rule),
        ("Tolerance", scenario.tolerance),
    ]
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in about if value]
    if scenario.sources:
        sources = tag("ul", *(tag("li", _source(one)) for one in scenario.sources))
        rows.append(tag("div", tag("dt", "Sources"), tag("dd", sources)))
    details = [
        _details(server, scenario, result)
        for server, result in zip(run.servers, facts.row(run, scenario, found), strict=True)
        if result is not None
    ]
    heading = tag("h4", scenario.title, " ", tag("code", scenario.id))
    return tag("section", heading, tag("dl", *rows, class_="about"), *details, id=f"scenario:{_quoted(scenario.id)}")


def _source(source: str) -> Markup:
    """A link where the source is an address of the web or an issue (``owner/repository#1``), and nothing else.

    ``javascript:`` is an address too.
    """
    if issue := re.fullmatch(r"([\w.-]+/[\w.-]+)#(\d+)", source, re.ASCII):
        address = f"https://github.com/{issue[1]}/issues/{issue[2]}"
    elif source.startswith("https://"):
        address = source
    else:
        return tag("span", source)
    return tag("a", source, href=address, rel="noreferrer noopener")


def _details(server: ServerInfo, scenario: ScenarioInfo, result: Result) -> Markup:
    summary = tag(
        "summary",
        _badge(result.verdict),
        tag("span", server.label, class_="server"),
        tag("span", result.sentence, class_="sentence"),
    )
    body = [
        tag("p", result.sentence, class_="sentence"),
        tag("dl", *_facts(result), class_="facts"),
        tag("h5", "Timeline ", tag("span", "what came before the signal has a scale of its own")),
        *_timeline(result),
    ]
    if result.output:
        body += [
            tag("h5", "Output of the server"),
            tag("pre", text.excerpt(result.output), tabindex="0", aria_label="Output of the server"),
        ]
    return tag(
        "details",
        summary,
        tag("div", *body, class_="body"),
        id=anchor(server.label, scenario.id),
        data_server=server.label,
        data_verdict=result.verdict.value,
    )


def _facts(result: Result) -> list[Markup]:
    end = facts.end_of(result)
    ended = "not seen" if end is None else text.duration(end.after)
    recorded = "none" if result.expected is None else result.expected.value
    if facts.unexpected(result):
        recorded += ", not as now"
    pairs = (
        ("Signal to exit", f"none, killed after {ended}" if end is not None and end.killed else ended),
        ("Exit code", "unknown" if result.exit_code is None else str(result.exit_code)),
        ("Tries", str(result.tries)),
        ("Recorded verdict", recorded),
        ("Took", text.duration(result.seconds)),
    )
    return [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs]


def _timeline(result: Result) -> list[Markup]:
    if not result.moments:
        return [tag("p", "No moment was recorded.", class_="faint")]
    heads = [tag("th", name, scope="col") for name in ("Time", "Seen by", "What", "Who", "More")]
    rows = []
    for one in facts.stretches(result.moments):
        more = [text.one_line(one.first.detail)] if one.first.detail else []
        if len(one.moments) > 1:
            more.append(f"{len(one.moments)} times, until {text.seconds(one.last.at)}")
        values = (one.first.source.value, one.first.what, one.first.who, " · ".join(more))
        row = tag("tr", tag("td", text.seconds(one.first.at), class_="at"), *(tag("td", value) for value in values))
        rows.append(row)
    if len(rows) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        left_out = f"{len(rows) - 2 * half} rows are left out here; the same run as JSON has every moment."
        rows = [*rows[:half], tag("tr", tag("td", left_out, colspan=5, class_="left-out")), *rows[-half:]]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="moments")
    return [
        drawing.draw(result, drawing.WIDE, class_="wide"),
        drawing.draw(result, drawing.NARROW, class_="narrow"),
        tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="Moments"),
    ]


def _servers(run: Run, found: facts.Cells) -> Markup:
    heads = [tag("th", name, scope="col") for name in ("Server", "Version", "Python", "Verdicts", "Started as")]
    rows = [
        tag(
            "tr",
            tag("th", one.label, scope="row"),
            tag("td", one.version),
            tag("td", one.python or "\N{EN DASH}"),
            tag("td", facts.counts(facts.tally_of(run, one, found))),
            tag("td", tag("code", one.command)),
        )
        for one in run.servers
    ]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))
    sheet = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="Servers")
    return tag("section", tag("h2", "Servers"), sheet, class_="servers")


def _footer() -> Markup:
    return tag(
        "footer",
        tag(
            "p",
            "Written by lastcall drill. A verdict says what one release did on one machine; "
            "a fail was seen twice. The same run as JSON holds every moment.",
        ),
    )


def _panel() -> Markup:
    """What the script fills with the details of one cell."""
    buttons = (
        tag("button", "←", type="button", id="earlier", aria_label="The server to the left"),
        tag("button", "→", type="button", id="later", aria_label="The server to the right"),
        tag("a", "Permalink", href="#", id="permalink"),
        tag("button", "Close", type="button", id="close"),
    )
    return tag(
        "dialog",
        tag("div", *buttons, class_="bar-of-panel"),
        tag("div", "", id="panel-content", tabindex="-1"),
        id="panel",
        aria_labelledby="panel-title",
    )

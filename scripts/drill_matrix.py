#!/usr/bin/env python3
"""Writes the matrix of the documentation from reports of `lastcall drill --json`.

    python scripts/drill_matrix.py RUN.json [RUN.json …]    # writes docs/reference/drill-matrix.md

Several reports may have several servers, or the same ones again: the page shows the first verdict of each server and
scenario, and says how often each was run and what was not the same every time. All have to be of the same scale.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lastcall_drill.reports import facts, text
from lastcall_drill.reports.markdown import matrix
from lastcall_drill.scenario import GROUPS
from lastcall_drill.verdicts import Result, Run, ScenarioInfo, ServerInfo, Verdict, from_json

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "drill-matrix.md"
REFERENCE = "drill-scenarios.md"

HEAD = """\
<!-- Made by `python scripts/drill_matrix.py RUN.json…` from reports of `lastcall drill --json`. Do not edit. -->

# The matrix

How released servers do in [the scenarios](drill-scenarios.md) of [the drill](drill.md). A verdict is about one clause,
at one release, with the options that stand [at the end](#servers), on one machine; [what a pass means, and what it does
not](../explanation/drill.md#what-a-pass-means). What was seen of each failure stands [below](#what-was-seen).

**Asked by** says whose wish a row is: a standard's, a need of supervisors, or our view ([what these
are](../explanation/drill.md#what-is-judged)). `uvicorn` is what pip installs by that name: h11 on asyncio, without
WebSocket; `uvicorn[standard]` has httptools, uvloop and websockets beside it. Verdicts are of the Python that stands
with the server.

To see the timelines, or to have the matrix of your own machine:

```sh
lastcall drill --server lastcall --server uvicorn --server hypercorn --html drill.html
```

## Verdicts

"""
_DIRECTORY = re.compile(r"(?<![\w:/.-])/(?:[\w.@+-]+/){2,}")
_SPECIAL = re.compile(r"([\\`*_<\[\]|])")


class Disagreement(Exception):
    """Reports that cannot stand in one matrix. Its text says why."""


def read(path: Path) -> Run:
    """The report in a file. Raises ValueError, KeyError or TypeError for another file, OSError for none."""
    return from_json(json.loads(path.read_text("utf-8")))


def merged(runs: Sequence[Run]) -> Run:
    """One run with the servers and scenarios of all; of what was run again, the first. Raises Disagreement."""
    if len(scales := {one.scale for one in runs}) != 1:
        raise Disagreement(f"the reports are of different scales: {', '.join(f'{one:g}' for one in sorted(scales))}")
    servers: dict[str, ServerInfo] = {}
    scenarios: dict[str, ScenarioInfo] = {}
    results: dict[tuple[str, str], Result] = {}
    for run in runs:
        for server in run.servers:
            known = servers.setdefault(server.label, server)
            if (known.name, known.version) != (server.name, server.version):
                raise Disagreement(f"{server.label} is {known.version} in one report and {server.version} in another")
        for scenario in run.scenarios:
            scenarios.setdefault(scenario.id, scenario)
        for result in run.results:
            results.setdefault((result.server, result.scenario), result)
    dates = sorted({one.date for one in runs})
    shown = [ServerInfo(**{**vars(one), "command": without_directories(one.command)}) for one in servers.values()]
    order = sorted(scenarios.values(), key=lambda one: (_group(one), one.id))
    machines = "; ".join(dict.fromkeys(one.machine for one in runs))
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return Run(span, machines, runs[0].scale, tuple(shown), tuple(order), tuple(results.values()))


def differing(runs: Sequence[Run], server: str) -> list[tuple[str, list[Verdict]]]:
    """The scenarios in which a server did not have the same verdict each time, with the verdicts in order."""
    found: dict[str, list[Verdict]] = {}
    for run in runs:
        for one in run.results:
            if one.server == server:
                found.setdefault(one.scenario, []).append(one.verdict)
    return [(scenario, verdicts) for scenario, verdicts in found.items() if len(set(verdicts)) > 1]


def page(runs: Sequence[Run]) -> str:
    """The whole page. Raises Disagreement."""
    run = merged(runs)
    found = facts.cells(run)
    parts = [HEAD, matrix(run, reference=REFERENCE), "\n## Runs\n\n", *_repetitions(runs, run)]
    parts.append("\n## What was seen\n\nOf each fail and error, in the drill's own words.\n")
    for server in run.servers:
        results = [found.get((server.label, scenario.id)) for scenario in run.scenarios]
        parts.append(f"\n### {f'{server.name} {server.version}' if server.version else _prose(server.label)}\n\n")
        parts += list(_seen(results)) or ["No fail, and no error.\n"]
    return "".join(parts)


def without_directories(words: str) -> str:
    """``/home/me/bin/python -m x`` -> ``python -m x``: nobody else has these directories."""
    return _DIRECTORY.sub("", words)


def _repetitions(runs: Sequence[Run], run: Run) -> Iterator[str]:
    yield "| server | runs | on | not the same each time |\n|---|---|---|---|\n"
    for server in run.servers:
        its = [each for each in runs if server.label in {one.label for one in each.servers}]
        dates = ", ".join(dict.fromkeys(each.date[:10] for each in its))
        other = [f"{_link(name)}: {', '.join(v.value for v in seen)}" for name, seen in differing(runs, server.label)]
        asked = Counter(one.scenario for each in its for one in each.results if one.server == server.label)
        least, most = min(asked.values()), max(asked.values())
        times = f"{most}" if least == most else f"{least} to {most}"
        yield f"| {_prose(server.label)} | {times} | {dates} | {'; '.join(other) or 'nothing'} |\n"


def _seen(results: Iterable[Result | None]) -> Iterator[str]:
    for one in results:
        if one is not None and one.verdict in (Verdict.FAIL, Verdict.ERROR):
            # An error may go on with the server's output.
            sentence = without_directories(text.one_line(one.sentence.partition("\n")[0]))
            yield f"- {_link(one.scenario)}: {one.verdict.value}: {_prose(sentence)}\n"


def _group(scenario: ScenarioInfo) -> int:
    return GROUPS.index(scenario.group) if scenario.group in GROUPS else len(GROUPS)


def _link(scenario: str) -> str:
    return f"[{scenario}]({REFERENCE}#{scenario})"


def _prose(words: str) -> str:
    return _SPECIAL.sub(r"\\\1", words)


def main(arguments: Sequence[str]) -> None:
    """Write the page. Ends in SystemExit with a sentence where it cannot."""
    if not arguments:
        sys.exit("usage: python scripts/drill_matrix.py RUN.json [RUN.json …]")
    runs = []
    for name in arguments:
        try:
            runs.append(read(Path(name)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            sys.exit(f"{name}: not a report of lastcall drill --json: {error}")
    try:
        PAGE.write_text(page(runs), encoding="utf-8")
    except Disagreement as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])

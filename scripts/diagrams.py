#!/usr/bin/env python3
"""Writes the state diagrams of the documentation from the tables in the code.

    python scripts/diagrams.py           # write them into the pages
    python scripts/diagrams.py --check   # exit 1 if a page is not up to date

A page has a place for a diagram between `<!-- diagram:NAME -->` and `<!-- /diagram:NAME -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from lastcall.asgi import lifespan
from lastcall.connection import http1
from lastcall.drain import ladder
from lastcall.supervisor import life, roll
from lastcall.supervisor.canary import run as canary

DOCS = Path(__file__).parents[1] / "docs"
PLACES = {
    "ladder": DOCS / "explanation" / "drain.md",
    "lifespan": DOCS / "explanation" / "architecture.md",
    "http1": DOCS / "explanation" / "architecture.md",
    "canary": DOCS / "explanation" / "canary.md",
    "worker": DOCS / "explanation" / "fleet.md",
    "roll": DOCS / "explanation" / "fleet.md",
}

S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741 - an input


def arrows(table: Mapping[tuple[S, I], S]) -> list[str]:
    """Return one Mermaid line for each pair of states, with every input that leads from the one to the other."""
    labels: dict[tuple[str, str], list[str]] = {}
    for (source, cause), target in table.items():
        if source is not target:
            labels.setdefault((source.name, target.name), []).append(str(cause.value))
    return [f"    {source} --> {target} : {' / '.join(causes)}" for (source, target), causes in labels.items()]


def ladder_diagram() -> str:
    """Return the stop ladder, with what is done on entering each phase."""
    notes = [
        f"    note right of {phase.name} : {', '.join(action.value for action in actions)}"
        for phase, actions in ladder.ENTRY.items()
        if actions
    ]
    return _mermaid(["    [*] --> STARTING", *arrows(ladder.TRANSITIONS), *notes, "    STOPPED --> [*]"])


def lifespan_diagram() -> str:
    """Return the machine of one lifespan."""
    return _mermaid(["    [*] --> IDLE", *arrows(lifespan.TRANSITIONS)])


def http1_diagram() -> str:
    """Return the states of one HTTP/1 connection."""
    moves = [f"    {state} --> {after}" for state, followers in http1.TRANSITIONS.items() for after in followers]
    return _mermaid(["    [*] --> AWAIT_HEAD", *moves, "    CLOSED --> [*]"])


def canary_diagram() -> str:
    """Return the procedure of a canary."""
    ends = [f"    {state.name} --> [*]" for state in canary.State if state in canary.FINAL]
    return _mermaid(["    [*] --> HOLD", *arrows(canary.TRANSITIONS), *ends])


def worker_diagram() -> str:
    """Return the life of a worker. It may be killed, and may die, everywhere: that would be a cobweb."""
    anywhere = (life.Cue.KILL, life.Cue.EXIT)
    moves = {pair: after for pair, after in life.TRANSITIONS.items() if pair[1] not in anywhere}
    ends = [f"    {state.name} --> [*]" for state in (life.Life.DRAINING, life.Life.ENDING, life.Life.STALLED)]
    note = "    note right of DRAINING : killed, or gone, is possible in every state"
    return _mermaid(["    [*] --> BOOTING", *arrows(moves), *ends, note])


def roll_diagram() -> str:
    """Return the stages of a rolling reload, without the end of the service, which ends each of them."""
    moves = {pair: after for pair, after in roll.TRANSITIONS.items() if pair[1] is not roll.Turn.END}
    ends = [f"    {stage.name} --> [*]" for stage in roll.Stage if stage in roll.FINAL and stage in moves.values()]
    begins = ["    [*] --> FIRST : without a canary", "    [*] --> OPENING : with a canary"]
    notes = [
        f"    note right of {stage.name} : {stage.value}" for stage in roll.Stage if stage is not roll.Stage.INTERRUPTED
    ]
    return _mermaid([*begins, *arrows(moves), *ends, *notes])


DIAGRAMS = {
    "worker": worker_diagram,
    "roll": roll_diagram,
    "ladder": ladder_diagram,
    "lifespan": lifespan_diagram,
    "http1": http1_diagram,
    "canary": canary_diagram,
}


def with_diagram(page: str, name: str) -> str:
    """Return the page with the diagram in its place. Raises ValueError for a page without one."""
    begin, end = f"<!-- diagram:{name} -->\n", f"<!-- /diagram:{name} -->\n"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"the page needs one pair of {begin.strip()} and {end.strip()}")
    return pattern.sub(lambda _: begin + DIAGRAMS[name]() + end, page)


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` only look; return the exit code."""
    stale = 0
    for name, path in PLACES.items():
        page = path.read_text(encoding="utf-8")
        wanted = with_diagram(page, name)
        if wanted != page:
            stale += 1
            if "--check" in arguments:
                print(f"{path}: the diagram {name} is not up to date: run scripts/diagrams.py", file=sys.stderr)
            else:
                path.write_text(wanted, encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


def _mermaid(lines: list[str]) -> str:
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```", ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

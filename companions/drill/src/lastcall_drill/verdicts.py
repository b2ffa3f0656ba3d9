"""What a drill finds: verdicts, with the moments that led to them, for the judges, the reports and the cards alike.

All times are seconds. A :class:`Run` is also the JSON that ``lastcall drill --json`` prints; ``FORMAT`` is its version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from lastcall_drill.record import Record

FORMAT = 1


class Verdict(Enum):
    """How a server did in one scenario."""

    PASS = "pass"
    FAIL = "fail"
    UNSUPPORTED = "unsupported"  # the server has no such feature, or not yet
    ERROR = "error"  # the drill could not be run: no judgement
    UNREACHED = "unreached"  # not asked, or not to be judged, because an earlier question has failed


class Basis(Enum):
    """Who asks for what a scenario's rule demands."""

    STANDARD = "standard"  # a specification: RFC, ASGI, POSIX, Python's own documentation
    SUPERVISOR = "supervisor"  # whoever starts, counts and kills processes; no specification binds a server to it
    VIEW = "view"  # ours: what a server's option, or a user, may be taken to want


class Source(Enum):
    """Who saw a moment."""

    DRILL = "drill"  # the drill itself: what it did, and when
    CLIENT = "client"
    APP = "app"
    PROCESS = "process"


class Moment(Record):
    """One thing that happened. ``at`` is in seconds since the signal, below zero before it.

    ``what`` is one of a small vocabulary: ``start``, ``ready``, ``connect``, ``request``, ``signal``, ``bytes``,
    ``response``, ``notice``, ``disconnect``, ``cancel``, ``task-end``, ``lifespan-startup``, ``lifespan-shutdown``,
    ``lifespan-end``, ``fin``, ``rst``, ``close-frame``, ``refused``, ``exit``, ``ended``, ``killed``, ``output``,
    ``note``.
    ``who`` names the connection, request or process; ``detail`` says more, in plain words.
    """

    at: float
    source: Source
    what: str
    who: str = ""
    detail: str = ""


class Result(Record):
    """One scenario on one server. ``sentence`` says what was seen, neutrally; ``tries`` how often it was run (1 or 2).

    ``expected`` is the verdict recorded for this release on this Python (None: none is recorded). ``seconds`` is what
    it took. ``exit_code`` is None if there was no exit, or the drill itself has ended the process.
    """

    scenario: str
    server: str
    verdict: Verdict
    sentence: str
    moments: Sequence[Moment] = ()
    tries: int = 1
    seconds: float = 0.0
    exit_code: int | None = None
    expected: Verdict | None = None
    output: str = ""


class ScenarioInfo(Record):
    """What a report says of a scenario. ``group`` is a heading of the matrix; ``sources`` are links or issue names.

    ``basis`` is None in reports of drills that did not say it yet.
    """

    id: str
    title: str
    group: str
    clause: str
    reason: str
    rule: str
    tolerance: str
    sources: Sequence[str] = ()
    basis: Basis | None = None


class ServerInfo(Record):
    """A server as it was judged: ``label`` as the user asked for it, its version, and the command that started it.

    ``name`` has its extras (``uvicorn[standard]``).
    """

    label: str
    name: str
    version: str
    command: str
    python: str = ""


class Run(Record):
    """Everything that one call of ``lastcall drill`` found. ``date`` is ISO 8601, UTC; ``machine`` a short text."""

    date: str
    machine: str
    scale: float
    servers: Sequence[ServerInfo]
    scenarios: Sequence[ScenarioInfo]
    results: Sequence[Result]

    def result(self, server: str, scenario: str) -> Result | None:
        """The result of one cell of the matrix, by the server's label and the scenario's id."""
        for one in self.results:
            if one.server == server and one.scenario == scenario:
                return one
        return None


def to_json(run: Run) -> dict[str, Any]:
    """The run as plain JSON values."""
    found: dict[str, Any] = _plain(run)
    return {"format": FORMAT, **found}


def from_json(data: Mapping[str, Any]) -> Run:
    """The run that ``to_json`` wrote. Raises ValueError for another format, KeyError or TypeError for what is none."""
    if data.get("format") != FORMAT:
        raise ValueError(f"a drill report of format {FORMAT} was expected, not {data.get('format')!r}")
    return Run(
        date=data["date"],
        machine=data["machine"],
        scale=data["scale"],
        servers=tuple(ServerInfo(**one) for one in data["servers"]),
        scenarios=tuple(_scenario(one) for one in data["scenarios"]),
        results=tuple(_result(one) for one in data["results"]),
    )


def _scenario(data: Mapping[str, Any]) -> ScenarioInfo:
    basis = data.get("basis")
    return ScenarioInfo(**{**data, "sources": tuple(data["sources"]), "basis": None if basis is None else Basis(basis)})


def _result(data: Mapping[str, Any]) -> Result:
    moments = tuple(Moment(**{**one, "source": Source(one["source"])}) for one in data["moments"])
    expected = None if data["expected"] is None else Verdict(data["expected"])
    return Result(**{**data, "moments": moments, "verdict": Verdict(data["verdict"]), "expected": expected})


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Record):
        return {name: _plain(one) for name, one in vars(value).items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value

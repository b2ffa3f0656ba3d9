"""What the reports say of a run beyond its fields: groups, counts, differences, and moments in stretches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lastcall_drill.record import Record
from lastcall_drill.verdicts import Basis, Moment, Result, Run, ScenarioInfo, ServerInfo, Source, Verdict

Cells = Mapping[tuple[str, str], Result]  # (the server's label, the scenario's id): the result

MEANINGS: Mapping[Verdict, str] = {
    Verdict.PASS: "it did what the clause asks",
    Verdict.FAIL: "it did not, twice",
    Verdict.UNSUPPORTED: "it has no such feature",
    Verdict.ERROR: "the drill could not be run: no judgement",
    Verdict.UNREACHED: "an earlier question had failed, so this one could not be asked",
}


BASES: Mapping[Basis, str] = {
    Basis.STANDARD: "standard",
    Basis.SUPERVISOR: "supervisors' need",
    Basis.VIEW: "our view",
}
"""Who asks for a rule, in the words of the reports."""

_ENDS = ("exit", "killed")


class End(Record):
    """The end of the process, ``after`` seconds from the signal. ``killed``: the drill had to end it."""

    after: float
    killed: bool


class Stretch(Record):
    """Moments of one kind, one after the other, seen by the same side of the same thing. Never empty."""

    moments: Sequence[Moment]

    @property
    def first(self) -> Moment:
        """The earliest."""
        return self.moments[0]

    @property
    def last(self) -> Moment:
        """The latest, which may be the first."""
        return self.moments[-1]


def cells(run: Run) -> Cells:
    """The results by server and scenario: the first of each pair, as ``Run.result`` has it."""
    found: dict[tuple[str, str], Result] = {}
    for one in run.results:
        found.setdefault((one.server, one.scenario), one)
    return found


def groups(run: Run) -> list[tuple[str, list[ScenarioInfo]]]:
    """The scenarios under their groups, both in the order in which the run names them first."""
    found: dict[str, list[ScenarioInfo]] = {}
    for one in run.scenarios:
        found.setdefault(one.group, []).append(one)
    return list(found.items())


def row(run: Run, scenario: ScenarioInfo, found: Cells) -> list[Result | None]:
    """The results of one scenario, one for each server, None where it was not run."""
    return [found.get((server.label, scenario.id)) for server in run.servers]


def tally(results: Iterable[Result | None]) -> Counter[Verdict]:
    """How many of each verdict."""
    return Counter(one.verdict for one in results if one is not None)


def tally_of(run: Run, server: ServerInfo, found: Cells) -> Counter[Verdict]:
    """How many of each verdict ``server`` has."""
    return tally(found.get((server.label, scenario.id)) for scenario in run.scenarios)


def counts(tallied: Mapping[Verdict, int]) -> str:
    """``9 pass, 1 fail``: what is not zero, in the order of the verdicts."""
    return ", ".join(f"{tallied[one]} {one.value}" for one in Verdict if tallied.get(one)) or "nothing run"


def differs(results: Sequence[Result | None]) -> bool:
    """Whether the servers do not all have the same verdict."""
    return len({None if one is None else one.verdict for one in results}) > 1


def unexpected(result: Result) -> bool:
    """Whether another verdict is recorded for this release."""
    return result.expected is not None and result.expected is not result.verdict


def end_of(result: Result) -> End | None:
    """How the process ended. None where the drill did not see it, has ended it itself, or it was before the signal."""
    if any(one.what == "ended" for one in result.moments):
        return None
    ends = [one for one in result.moments if one.source in (Source.PROCESS, Source.DRILL) and one.what in _ENDS]
    last = max(ends, key=lambda one: one.at, default=None)
    return End(last.at, any(one.what == "killed" for one in ends)) if last is not None and last.at >= 0 else None


def in_order(moments: Iterable[Moment]) -> list[Moment]:
    """The moments by time; those of the same time stay as they were."""
    return sorted(moments, key=lambda one: one.at)


def stretches(moments: Iterable[Moment]) -> list[Stretch]:
    """The moments by time, with neighbours of the same source, kind and name put together."""
    found: list[list[Moment]] = []
    for one in in_order(moments):
        before = found[-1][0] if found else None
        if before is not None and (before.source, before.what, before.who) == (one.source, one.what, one.who):
            found[-1].append(one)
        else:
            found.append([one])
    return [Stretch(tuple(one)) for one in found]

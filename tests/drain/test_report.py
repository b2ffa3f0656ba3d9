"""How a server stopped: the line, the JSON, and the tally behind them, which adds up whatever happens."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lastcall.drain.report import (
    ABANDONED,
    BROKEN_OFF,
    CANCELLED,
    CLOSED_BY_POLICY,
    DISCONNECTED,
    FINISHED,
    KINDS,
    NAMED_AT_MOST,
    OUTCOMES,
    Cut,
    StopReport,
    Tally,
)
from lastcall.notice.running import RunningTask, RunningTasks

# -- the line ----------------------------------------------------------------------------------------------------------


def cut(path: str = "/inf", **fields: Any) -> Cut:
    usual = {
        "kind": "stream", "outcome": DISCONNECTED, "method": "GET", "path": path, "age": 5.4999,
        "phase": "DISCONNECTING", "bytes_sent": 28, "client": "127.0.0.1:4711",
    }  # fmt: skip
    return Cut(**{**usual, **fields})


def report(**fields: Any) -> StopReport:
    usual = {
        "cause": "SIGTERM", "exit_code": 0, "seconds": 1.25, "lifespan": "complete", "in_flight": {"request": 3},
        "finished": 3,
    }  # fmt: skip
    return StopReport(**{**usual, **fields})


def test_a_clean_stop_is_one_short_line() -> None:
    assert str(report()) == "Stopped (SIGTERM) after 1.2 s: 3 of 3 finished; lifespan complete; exit code 0"


def test_a_stop_with_nobody_there() -> None:
    assert str(report(in_flight={}, finished=0)) == (
        "Stopped (SIGTERM) after 1.2 s: 0 of 0 finished; lifespan complete; exit code 0"
    )


def test_the_line_names_what_was_cut() -> None:
    text = str(
        report(
            in_flight={"stream": 3, "app task": 1},
            arrived=3,
            finished=2,
            closed_by_policy=1,
            broken_off=1,
            disconnected=1,
            cancelled=1,
            abandoned=1,
            exit_code=5,
            cut=(cut(), cut("/up", kind="request", outcome=CANCELLED, method="POST", bytes_sent=0, age=2.0)),
        )
    )
    assert text == (
        "Stopped (SIGTERM) after 1.2 s: 2 of 7 finished, 1 closed by policy, 1 broken off, 1 disconnected, "
        "1 cancelled, 1 abandoned; "
        "lifespan complete; exit code 5. "
        "Cut: GET /inf (stream, 5.5 s, 28 bytes, disconnected), POST /up (request, 2.0 s, 0 bytes, cancelled)"
    )


@pytest.mark.parametrize(("count", "more"), [(1, ""), (5, ""), (6, " and 1 more"), (12, " and 7 more")])
def test_five_are_named_and_the_rest_counted(count: int, more: str) -> None:
    text = str(report(cut=tuple(cut(f"/{number}") for number in range(count))))
    assert text.count("GET /") == min(count, NAMED_AT_MOST)
    assert text.endswith(f"disconnected){more}")
    assert "\n" not in text


def test_a_cut_without_a_method_is_its_name() -> None:
    assert str(cut("task x", method="")) == "task x (stream, 5.5 s, 28 bytes, disconnected)"


# -- the JSON ----------------------------------------------------------------------------------------------------------


def test_the_json_has_every_field_on_one_line() -> None:
    full = report(
        seconds=1.23456,
        phases={"DRAINING": 1.00049, "CLOSING": 0.2},
        cut=(cut("/é\n"),),
        left=("GET /a", "task b"),
        backlog_answered=2,
        moved=12,
        background_finished=1,
    )
    text = full.as_json()
    assert "\n" not in text
    assert json.loads(text) == {
        "cause": "SIGTERM",
        "exit_code": 0,
        "seconds": 1.235,
        "lifespan": "complete",
        "phases": {"DRAINING": 1.0, "CLOSING": 0.2},
        "in_flight": {"request": 3},
        "arrived": 0,
        "finished": 3,
        "closed_by_policy": 0,
        "broken_off": 0,
        "disconnected": 0,
        "cancelled": 0,
        "abandoned": 0,
        "backlog_answered": 2,
        "moved": 12,
        "background_finished": 1,
        "cut": [
            {
                "kind": "stream",
                "outcome": "disconnected",
                "method": "GET",
                "path": "/é\n",
                "age": 5.5,
                "phase": "DISCONNECTING",
                "bytes_sent": 28,
                "client": "127.0.0.1:4711",
            }
        ],
        "left": ["GET /a", "task b"],
        "outcome": "stopped",
    }
    assert list(json.loads(text)) == list(StopReport._fields)
    assert full.as_dict() == json.loads(text)


def test_a_draft_is_made_whole_by_how_the_process_ended() -> None:
    one = report(outcome="watchdog", exit_code=1, seconds=2.5)
    assert json.loads(one.as_draft() + ', "outcome": "watchdog", "exit_code": 1, "seconds": 2.5}') == one.as_dict()


def test_the_report_does_not_change_when_its_dict_does() -> None:
    full = report(cut=(cut(),))
    full.as_dict()["cut"][0]["age"] = 0
    assert full.cut[0].age == 5.4999


def test_the_total_is_what_ran_and_what_came() -> None:
    assert report(in_flight={"request": 2, "stream": 1}, arrived=4).total == 7
    assert report(in_flight={}).total == 0


# -- the tally ---------------------------------------------------------------------------------------------------------


class Job(RunningTask):
    """Work whose state a test sets."""

    def __init__(self, kind: str = "request", name: str = "job") -> None:
        self.kind_now = kind
        self.name = name
        self.done = kind in ("background", "app task")
        self.behind = False
        self.broken: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        return self.kind_now

    @property
    def response_complete(self) -> bool:
        return self.done

    @property
    def ran_after_response(self) -> bool:
        return self.behind

    @property
    def broken_off(self) -> dict[str, Any] | None:
        return self.broken

    @property
    def client_disconnected(self) -> bool:
        return self.broken is not None

    def break_off(self) -> None:
        """What the application's cycle does when it ends a response in the middle."""
        self.outcome, self.broken = BROKEN_OFF, self.details()

    def details(self) -> dict[str, Any]:
        return {"method": "GET", "path": self.name, "bytes_sent": 7, "client": "c"}


class Stop:
    """Running tasks and a tally, as the controller puts them together."""

    def __init__(self, *jobs: Job) -> None:
        self.tasks = RunningTasks()
        self.tally = Tally()
        for number, job in enumerate(jobs):
            self.tasks.join(job, float(number))
        self.tally.begin(self.tasks.snapshot(), self.tasks.total)
        self.now, self.phase = 100.0, "DRAINING"
        self.tasks.on_end = lambda job: self.tally.ended(job, self.now, self.phase)

    @property
    def arrived(self) -> int:
        return self.tasks.total - self.tally.ran_before

    def counts(self) -> dict[str, int]:
        return {word: count for word, count in self.tally.counts.items() if count}


def test_what_runs_at_the_order_is_counted_by_kind() -> None:
    stop = Stop(Job("request"), Job("stream"), Job("stream"), Job("background"), Job("app task"))
    assert stop.tally.in_flight == {"request": 1, "stream": 2, "background": 1, "app task": 1}
    assert set(stop.tally.in_flight) <= set(KINDS)
    assert (stop.tally.ran_before, stop.arrived) == (5, 0)
    stop.tasks.join(Job(), 9.0)
    assert stop.arrived == 1


def test_what_ends_by_itself_has_finished() -> None:
    job = Job("stream")
    stop = Stop(job)
    stop.tasks.leave(job)
    assert stop.counts() == {FINISHED: 1}
    assert stop.tally.cut == ()


def test_background_work_that_finishes_is_counted_as_such() -> None:
    jobs = [Job("background") for _ in range(3)]
    for job in jobs[:2]:
        job.behind = True
    stop = Stop(*jobs)
    stop.tally.told(jobs[0], CANCELLED, 9.0, "CANCELLING")
    for job in jobs:
        stop.tasks.leave(job)
    assert stop.counts() == {FINISHED: 2, CANCELLED: 1}
    assert stop.tally.background_finished == 1, "not the cancelled one, nor one that never went on"
    assert stop.tally.cut == (), "its response was complete"


@pytest.mark.parametrize("outcome", [DISCONNECTED, CANCELLED])
def test_an_unfinished_response_is_cut_and_described_as_it_was_then(outcome: str) -> None:
    job = Job("stream", "/inf")
    stop = Stop(job)
    stop.tally.told(job, outcome, 12.5, "DISCONNECTING")
    assert len(stop.tally.cut) == 0, "not yet: it may still finish"
    job.kind_now, job.name = "background", "other"
    stop.tasks.leave(job)
    assert stop.counts() == {outcome: 1}
    assert list(stop.tally.cut) == [Cut("stream", outcome, "GET", "/inf", 12.5, "DISCONNECTING", 7, "c")]


def test_a_response_that_finishes_all_the_same_is_no_cut() -> None:
    job = Job("stream")
    stop = Stop(job)
    stop.tally.told(job, CANCELLED, 12.5, "CANCELLING")
    job.done = True
    stop.tasks.leave(job)
    assert stop.counts() == {CANCELLED: 1}
    assert stop.tally.cut == ()


def test_closed_by_policy_is_what_was_asked_for() -> None:
    job = Job("stream")
    stop = Stop(job)
    job.outcome = CLOSED_BY_POLICY  # by the cycle itself, at the end of the farewell
    stop.tally.told(job, DISCONNECTED, 18.0, "DISCONNECTING")
    stop.tally.told(job, CANCELLED, 20.0, "CANCELLING")
    stop.tasks.leave(job)
    assert stop.counts() == {CLOSED_BY_POLICY: 1}
    assert stop.tally.cut == ()


def test_one_that_its_application_has_broken_off_is_a_cut_and_counted_once() -> None:
    """Also if its task went on, and was cancelled; the server cut nothing any more."""
    jobs = [Job("stream", "/0"), Job("stream", "/1")]
    stop = Stop(*jobs)
    for job in jobs:
        job.break_off()
    stop.tally.told(jobs[1], CANCELLED, 20.0, "CANCELLING")
    for job in jobs:
        stop.tasks.leave(job)
    assert stop.counts() == {BROKEN_OFF: 2}
    assert list(stop.tally.cut) == [
        Cut("stream", BROKEN_OFF, "GET", "/0", 100.0, "DRAINING", 7, "c"),
        Cut("stream", BROKEN_OFF, "GET", "/1", 99.0, "DRAINING", 7, "c"),
    ]


def test_the_first_outcome_counts() -> None:
    job = Job("stream")
    stop = Stop(job)
    stop.tally.told(job, DISCONNECTED, 18.0, "DISCONNECTING")
    stop.tally.told(job, CANCELLED, 20.0, "CANCELLING")
    stop.tasks.leave(job)
    assert stop.counts() == {DISCONNECTED: 1}
    assert [(one.outcome, one.age, one.phase) for one in stop.tally.cut] == [(DISCONNECTED, 18.0, "DISCONNECTING")]


@pytest.mark.parametrize("before", [None, DISCONNECTED, CANCELLED, CLOSED_BY_POLICY])
def test_abandoned_is_more_than_all(before: str | None) -> None:
    job = Job("stream")
    stop = Stop(job)
    if before == CLOSED_BY_POLICY:
        job.outcome = CLOSED_BY_POLICY
    elif before is not None:
        stop.tally.told(job, before, 18.0, "DISCONNECTING")
    stop.tasks.on_end = None
    stop.tally.told(job, ABANDONED, 22.0, "CANCELLING")
    stop.tally.abandon(job, 22.0, "CANCELLING")
    assert job.outcome == ABANDONED
    assert stop.counts() == {ABANDONED: 1}
    assert [one.outcome for one in stop.tally.cut] == [ABANDONED]


@pytest.mark.parametrize("kind", ["background", "app task"])
def test_abandoned_work_without_a_client_is_no_cut(kind: str) -> None:
    job = Job(kind)
    stop = Stop(job)
    stop.tally.told(job, CANCELLED, 20.0, "CANCELLING")
    stop.tally.told(job, ABANDONED, 22.0, "CANCELLING")
    stop.tally.abandon(job, 22.0, "CANCELLING")
    assert stop.counts() == {ABANDONED: 1}
    assert stop.tally.cut == ()


def test_a_whole_response_whose_task_is_abandoned_is_no_cut() -> None:
    """It was cancelled while it streamed, sent the rest all the same, and then did not end."""
    job = Job("stream")
    stop = Stop(job)
    stop.tally.told(job, CANCELLED, 20.0, "CANCELLING")
    job.kind_now, job.done = "background", True
    stop.tally.told(job, ABANDONED, 22.0, "CANCELLING")
    stop.tally.abandon(job, 22.0, "CANCELLING")
    assert stop.counts() == {ABANDONED: 1}
    assert stop.tally.cut == ()


def test_the_oldest_cut_comes_first() -> None:
    jobs = [Job("stream", f"/{number}") for number in range(4)]
    stop = Stop(*jobs)
    for job in (jobs[2], jobs[0], jobs[3], jobs[1]):
        stop.tally.told(job, DISCONNECTED, 18.0, "DISCONNECTING")
        stop.tasks.leave(job)
    assert [one.path for one in stop.tally.cut] == ["/0", "/1", "/2", "/3"]


class StopMachine(RuleBasedStateMachine):
    """A stop as the controller drives it, with work that comes, changes, ends and does not end, in any order."""

    @initialize(kinds=st.lists(st.sampled_from(KINDS), max_size=6))
    def order(self, kinds: list[str]) -> None:
        self.stop = Stop(*(Job(kind, f"/{number}") for number, kind in enumerate(kinds)))
        self.running: list[Job] = [job for job in self.stop.tasks.snapshot() if isinstance(job, Job)]
        self.now = 100.0
        self.over = False
        self.met = len(kinds)
        self.left: Counter[str] = Counter()
        self.expected_cut: set[str] = set()

    def pick(self, data: st.DataObject) -> Job | None:
        return data.draw(st.sampled_from(self.running)) if self.running else None

    @rule(kind=st.sampled_from(KINDS))
    @precondition(lambda self: not self.over)
    def arrive(self, kind: str) -> None:
        job = Job(kind, f"/{self.met}")
        self.met += 1
        self.stop.tasks.join(job, self.now)
        self.running.append(job)

    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """A request becomes a stream, and then work after a whole response."""
        job = self.pick(data)
        if job is not None and job.kind_now in ("request", "stream"):
            if job.kind_now == "stream" and job.outcome not in (DISCONNECTED, CLOSED_BY_POLICY, BROKEN_OFF):
                job.kind_now, job.done, job.behind = "background", True, True
            elif job.kind_now == "request":
                job.kind_now = "stream"

    @rule(data=st.data())
    def close_by_policy(self, data: st.DataObject) -> None:
        job = self.pick(data)
        if job is not None and job.kind_now == "stream" and job.outcome is None:
            job.outcome = CLOSED_BY_POLICY

    @rule(data=st.data())
    def break_off(self, data: st.DataObject) -> None:
        job = self.pick(data)
        if job is not None and job.kind_now == "stream" and job.outcome is None:
            job.break_off()

    @rule(outcome=st.sampled_from([DISCONNECTED, CANCELLED]))
    @precondition(lambda self: not self.over)
    def tell(self, outcome: str) -> None:
        self.now += 1
        for job in self.running:
            if outcome == CANCELLED or job.kind_now == "stream":
                self.stop.tally.told(job, outcome, self.now, "PHASE")

    @rule(data=st.data(), twice=st.booleans())
    def end(self, data: st.DataObject, twice: bool) -> None:
        job = self.pick(data)
        if job is None:
            return
        self.running.remove(job)
        if not self.over:
            self.left[job.outcome or FINISHED] += 1
            if job.outcome in (BROKEN_OFF, DISCONNECTED, CANCELLED) and not job.done:
                self.expected_cut.add(job.name)
        for _ in range(1 + twice):
            self.stop.tasks.leave(job)

    @rule()
    @precondition(lambda self: not self.over)
    def abandon(self) -> None:
        self.over = True
        self.stop.tasks.on_end = None
        for job in self.running:
            if job.kind_now in ("request", "stream", "websocket"):
                self.expected_cut.add(job.name)
            self.stop.tally.told(job, ABANDONED, self.now, "PHASE")
            self.stop.tally.abandon(job, self.now, "PHASE")
            self.left[ABANDONED] += 1

    @invariant()
    def each_is_counted_once(self) -> None:
        counts = self.stop.tally.counts
        assert set(counts) == set(OUTCOMES)
        assert counts == {word: self.left[word] for word in OUTCOMES}
        still = 0 if self.over else len(self.running)
        assert sum(self.stop.tally.in_flight.values()) + self.stop.arrived == sum(counts.values()) + still == self.met

    @invariant()
    def the_cut_were_not_finished(self) -> None:
        names = [one.path for one in self.stop.tally.cut]
        assert len(names) == len(set(names))
        assert set(names) == self.expected_cut
        assert {one.outcome for one in self.stop.tally.cut} <= {BROKEN_OFF, DISCONNECTED, CANCELLED, ABANDONED}


TestStop = StopMachine.TestCase

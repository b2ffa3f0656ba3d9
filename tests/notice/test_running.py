"""The tasks against a model: entries join once, leave once, in any order, and each end is told once."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lastcall.notice.running import RunningTask, RunningTasks


class Work(RunningTask):
    """An entry with a name."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def describe(self) -> str:
        return self.name


class LedgerMachine(RuleBasedStateMachine):
    """Two ledgers and a list for each; every entry is in one of them at most."""

    @initialize()
    def begin(self) -> None:
        self.left: list[list[RunningTask]] = [[], []]
        self.ledgers = [RunningTasks(), RunningTasks()]
        for index, tasks in enumerate(self.ledgers):
            tasks.on_end = lambda entry, index=index: self.has_left(index, entry)
        self.models: list[list[Work]] = [[], []]
        self.totals = [0, 0]
        self.gone: list[Work] = []
        self.expected: list[list[RunningTask]] = [[], []]

    def has_left(self, index: int, entry: RunningTask) -> None:
        assert not entry.running
        assert entry not in self.ledgers[index].entries(), "whoever is told sees the running tasks without it"
        self.left[index].append(entry)

    @rule(which=st.integers(0, 1), now=st.floats(0, 1e6))
    def join(self, which: int, now: float) -> None:
        work = Work()
        self.ledgers[which].join(work, now)
        assert (work.running, work.since) == (True, now)
        self.models[which].insert(0, work)
        self.totals[which] += 1

    @rule(which=st.integers(0, 1))
    @precondition(lambda self: self.gone)
    def join_again(self, which: int) -> None:
        work = self.gone.pop()
        self.ledgers[which].join(work, 1.0)
        self.models[which].insert(0, work)
        self.totals[which] += 1

    @rule(which=st.integers(0, 1), data=st.data())
    def leave(self, which: int, data: st.DataObject) -> None:
        model = self.models[which]
        if not model:
            return
        work = model.pop(data.draw(st.integers(0, len(model) - 1)))
        self.ledgers[which].leave(work)
        assert not work.running
        self.expected[which].append(work)
        self.gone.append(work)

    @rule(which=st.integers(0, 1))
    @precondition(lambda self: self.gone)
    def leave_twice(self, which: int) -> None:
        self.ledgers[which].leave(self.gone[-1])

    @rule(which=st.integers(0, 1))
    def leave_the_wrong_one(self, which: int) -> None:
        for work in self.models[1 - which]:
            self.ledgers[which].leave(work)
            assert work.running

    @rule(which=st.integers(0, 1))
    def join_twice(self, which: int) -> None:
        for model in self.models:
            for work in model[:1]:
                with pytest.raises(ValueError, match="running already"):
                    self.ledgers[which].join(work, 1.0)

    @invariant()
    def same_as_the_model(self) -> None:
        for tasks, model, total in zip(self.ledgers, self.models, self.totals, strict=True):
            assert tasks.snapshot() == list(tasks) == model
            assert tasks.count == len(tasks) == len(model)
            assert tasks.total == total
        assert self.left == self.expected


TestLedger = LedgerMachine.TestCase


def test_entries_may_leave_while_somebody_walks_over_the_snapshot() -> None:
    tasks = RunningTasks()
    works = [Work(str(number)) for number in range(10)]
    for work in works:
        tasks.join(work, 0.0)
    for entry in tasks:
        tasks.leave(entry)
        tasks.leave(works[0])
    assert tasks.count == 0
    assert not any(work.running for work in works)


def test_a_new_entry_while_one_leaves() -> None:
    tasks = RunningTasks()
    late = Work("late")
    tasks.on_end = lambda entry: tasks.join(late, 2.0) if not late.running else None
    first = Work("first")
    tasks.join(first, 1.0)
    tasks.leave(first)
    assert tasks.snapshot() == [late]


def test_nobody_is_told_unless_somebody_asks() -> None:
    """The server asks from its stop order on: on an idle one every request is the last."""
    tasks = RunningTasks()
    assert tasks.on_end is None
    told: list[RunningTask] = []
    early, late = Work("early"), Work("late")
    tasks.join(early, 0.0)
    tasks.join(late, 0.0)
    tasks.leave(early)
    tasks.on_end = told.append
    tasks.leave(late)
    tasks.leave(early)
    assert told == [late]


def test_an_outcome_is_what_somebody_says_it_is() -> None:
    work = Work()
    assert work.outcome is None
    tasks = RunningTasks()
    seen: list[str | None] = []
    tasks.on_end = lambda entry: seen.append(entry.outcome)
    tasks.join(work, 0.0)
    work.outcome = "cancelled"
    tasks.leave(work)
    assert seen == ["cancelled"]


def test_plain_work_is_a_whole_request_that_nobody_can_cut() -> None:
    entry = RunningTask()
    assert (entry.kind, entry.response_complete, entry.ran_after_response) == ("request", True, False)
    assert entry.disconnect_response("disconnected") is False
    assert entry.outcome is None
    entry.abandon()
    assert entry.details() == {"method": "", "path": "RunningTask", "bytes_sent": 0, "client": ""}


def test_an_entry_says_what_it_cannot_do() -> None:
    assert RunningTask().describe() == "RunningTask"
    with pytest.raises(TypeError, match="Work cannot be cancelled"):
        Work().cancel()


def test_what_has_left_is_not_kept() -> None:
    tasks = RunningTasks()
    gc.disable()
    try:
        works = [Work(str(number)) for number in range(5)]
        known = [weakref.ref(work) for work in works]
        for work in works:
            tasks.join(work, 0.0)
        for work in (works[2], works[0], works[4], works[1], works[3]):
            tasks.leave(work)
        works.clear()
        del work
        assert [ref() for ref in known] == [None] * 5
    finally:
        gc.enable()

"""The running tasks against a model: each joins once, leaves once, in any order, and its end is told once."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lastcall.drain.policy import Policy
from lastcall.notice.running import RunningTask, RunningTasks


class Work(RunningTask):
    """A task with a name."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def describe(self) -> str:
        return self.name


class TasksMachine(RuleBasedStateMachine):
    """Two workers and a list for each; every task runs in one of them at most."""

    @initialize()
    def begin(self) -> None:
        self.ended: list[list[RunningTask]] = [[], []]
        self.workers = [RunningTasks(), RunningTasks()]
        for index, tasks in enumerate(self.workers):
            tasks.on_end = lambda task, index=index: self.has_ended(index, task)
        self.models: list[list[Work]] = [[], []]
        self.totals = [0, 0]
        self.gone: list[Work] = []
        self.expected: list[list[RunningTask]] = [[], []]

    def has_ended(self, index: int, task: RunningTask) -> None:
        assert not task.running
        assert task not in self.workers[index].snapshot(), "whoever is told sees the running tasks without it"
        self.ended[index].append(task)

    @rule(which=st.integers(0, 1), now=st.floats(0, 1e6))
    def join(self, which: int, now: float) -> None:
        work = Work()
        self.workers[which].join(work, now)
        assert (work.running, work.since) == (True, now)
        self.models[which].insert(0, work)
        self.totals[which] += 1

    @rule(which=st.integers(0, 1))
    @precondition(lambda self: self.gone)
    def join_again(self, which: int) -> None:
        work = self.gone.pop()
        self.workers[which].join(work, 1.0)
        self.models[which].insert(0, work)
        self.totals[which] += 1

    @rule(which=st.integers(0, 1), data=st.data())
    def leave(self, which: int, data: st.DataObject) -> None:
        model = self.models[which]
        if not model:
            return
        work = model.pop(data.draw(st.integers(0, len(model) - 1)))
        self.workers[which].leave(work)
        assert not work.running
        self.expected[which].append(work)
        self.gone.append(work)

    @rule(which=st.integers(0, 1))
    @precondition(lambda self: self.gone)
    def leave_twice(self, which: int) -> None:
        self.workers[which].leave(self.gone[-1])

    @rule(which=st.integers(0, 1))
    def leave_the_wrong_one(self, which: int) -> None:
        for work in self.models[1 - which]:
            self.workers[which].leave(work)
            assert work.running

    @rule(which=st.integers(0, 1))
    def join_twice(self, which: int) -> None:
        for model in self.models:
            for work in model[:1]:
                with pytest.raises(ValueError, match="running"):
                    self.workers[which].join(work, 1.0)

    @invariant()
    def same_as_the_model(self) -> None:
        for tasks, model, total in zip(self.workers, self.models, self.totals, strict=True):
            assert tasks.snapshot() == list(tasks) == model
            assert tasks.count == len(tasks) == len(model)
            assert tasks.total == total
            assert tasks.places == 0, "only what a subclass says counts for --limit-concurrency"
        assert self.ended == self.expected


TestTasks = TasksMachine.TestCase


def test_tasks_may_end_while_somebody_walks_over_the_snapshot() -> None:
    tasks = RunningTasks()
    works = [Work(str(number)) for number in range(10)]
    for work in works:
        tasks.join(work, 0.0)
    for task in tasks:
        tasks.leave(task)
        tasks.leave(works[0])
    assert tasks.count == 0
    assert not any(work.running for work in works)


def test_a_new_task_while_one_ends() -> None:
    tasks = RunningTasks()
    late = Work("late")
    tasks.on_end = lambda task: tasks.join(late, 2.0) if not late.running else None
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
    tasks.on_end = lambda task: seen.append(task.outcome)
    tasks.join(work, 0.0)
    work.outcome = "cancelled"
    tasks.leave(work)
    assert seen == ["cancelled"]


def test_plain_work_is_a_whole_request_that_nobody_can_cut() -> None:
    task = RunningTask()
    assert (task.kind, task.response_complete, task.ran_after_response) == ("request", True, False)
    assert (task.disconnectable, task.client_disconnected, task.policy) == (False, False, Policy.DEFAULT)
    assert task.disconnect_response("disconnected") is False
    task.disconnect_if_closing()
    assert task.outcome is None
    task.abandon()
    assert task.details() == {"method": "", "path": "RunningTask", "bytes_sent": 0, "client": ""}


def test_a_task_says_what_it_cannot_do() -> None:
    assert RunningTask().describe() == "RunningTask"
    with pytest.raises(TypeError, match="Work"):
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

"""A loop that never rests steps back for the thread that it waits for: when, and how often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lastcall_once.stores.gil_handoff import GilHandoff
from testing.loop import VirtualLoop


class Setting:
    """GilHandoff in time that costs nothing. ``handed_over`` has the times at which the loop did."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.handoff = GilHandoff(self.loop)
        self.handed_over: list[float] = []
        self._began = self.loop.time()
        self.handoff._answered.wait = self._waited  # type: ignore[method-assign]

    def _waited(self, timeout: float | None = None) -> bool:
        assert timeout == 0.005
        self.handed_over.append(round(self.loop.time() - self._began, 3))
        return False

    def at(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        self.loop.call_at(self._began + seconds, call, *args)

    def run(self, seconds: float) -> None:
        self.loop.advance(seconds)


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting()
    yield made
    made.handoff.close()
    made.loop.finish()


def test_a_thread_that_does_not_answer_gets_turns_that_come_twice_as_late(setting: Setting) -> None:
    setting.handoff.requested()
    setting.run(1.0)
    assert setting.handed_over == [0.02, 0.06, 0.14, 0.3, 0.62]


def test_a_thread_that_answers_needs_none(setting: Setting) -> None:
    for number in range(20):
        setting.at(number * 0.015, setting.handoff.requested)
        setting.at(number * 0.015 + 0.014, setting.handoff.answered, 1)
    setting.run(1.0)
    assert not setting.handed_over


def test_once_it_has_answered_it_is_helped_early_again(setting: Setting) -> None:
    setting.handoff.requested()
    setting.handoff.requested()
    setting.at(0.5, setting.handoff.answered, 1)
    setting.run(0.7)
    assert setting.handed_over == [0.02, 0.06, 0.14, 0.3, 0.64, 0.68]
    setting.handoff.answered(1)
    setting.run(1.0)
    setting.handed_over.clear()
    setting.handoff.requested()
    setting.run(0.03)
    assert len(setting.handed_over) == 1


def test_nothing_is_left_in_the_loop_when_all_is_answered_or_it_is_closed(setting: Setting) -> None:
    setting.handoff.requested()
    setting.handoff.answered(1)
    setting.run(0.1)
    assert setting.handoff._timer is None
    setting.handoff.requested()
    setting.handoff.close()
    setting.run(1.0)
    assert not setting.handed_over


def test_an_answer_ends_the_hand_over() -> None:
    loop = VirtualLoop()
    handoff = GilHandoff(loop)
    handoff._answers_before = handoff._answers
    waiting = threading.Event()
    wait = handoff._answered.wait

    def told(timeout: float | None = None) -> bool:
        waiting.set()
        return wait(20)

    handoff._answered.wait = told  # type: ignore[method-assign]

    def answer() -> None:
        waiting.wait(20)
        handoff.answered(1)

    thread = threading.Thread(target=answer)
    thread.start()
    handoff._hand_over()
    thread.join()
    assert handoff._answered.is_set()
    handoff._hand_over()  # it has answered since it was looked at: this does not wait
    loop.finish()

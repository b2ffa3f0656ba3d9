"""A loop that never rests steps back for the thread that it waits for: when, and how often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lastcall_once.stores.turns import Turns
from testing.loop import VirtualLoop


class Setting:
    """Turns in time that costs nothing. ``stepped_back`` has the times at which the loop did."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.turns = Turns(self.loop)
        self.stepped_back: list[float] = []
        self._began = self.loop.time()
        self.turns._news.wait = self._waited  # type: ignore[method-assign]

    def _waited(self, timeout: float | None = None) -> bool:
        assert timeout == 0.005
        self.stepped_back.append(round(self.loop.time() - self._began, 3))
        return False

    def at(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        self.loop.call_at(self._began + seconds, call, *args)

    def run(self, seconds: float) -> None:
        self.loop.advance(seconds)


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting()
    yield made
    made.turns.close()
    made.loop.finish()


def test_a_thread_that_does_not_answer_gets_turns_that_come_twice_as_late(setting: Setting) -> None:
    setting.turns.asked()
    setting.run(1.0)
    assert setting.stepped_back == [0.02, 0.06, 0.14, 0.3, 0.62]


def test_a_thread_that_answers_needs_none(setting: Setting) -> None:
    for number in range(20):
        setting.at(number * 0.015, setting.turns.asked)
        setting.at(number * 0.015 + 0.014, setting.turns.answered, 1)
    setting.run(1.0)
    assert not setting.stepped_back


def test_once_it_has_answered_it_is_helped_early_again(setting: Setting) -> None:
    setting.turns.asked()
    setting.turns.asked()
    setting.at(0.5, setting.turns.answered, 1)
    setting.run(0.7)
    assert setting.stepped_back == [0.02, 0.06, 0.14, 0.3, 0.64, 0.68]
    setting.turns.answered(1)
    setting.run(1.0)
    setting.stepped_back.clear()
    setting.turns.asked()
    setting.run(0.03)
    assert len(setting.stepped_back) == 1


def test_nothing_is_left_in_the_loop_when_all_is_answered_or_it_is_closed(setting: Setting) -> None:
    setting.turns.asked()
    setting.turns.answered(1)
    setting.run(0.1)
    assert setting.turns._timer is None
    setting.turns.asked()
    setting.turns.close()
    setting.run(1.0)
    assert not setting.stepped_back


def test_the_answer_ends_a_turn() -> None:
    loop = VirtualLoop()
    turns = Turns(loop)
    turns._seen = turns._answered
    waiting = threading.Event()
    wait = turns._news.wait

    def told(timeout: float | None = None) -> bool:
        waiting.set()
        return wait(20)

    turns._news.wait = told  # type: ignore[method-assign]

    def answer() -> None:
        waiting.wait(20)
        turns.answered(1)

    thread = threading.Thread(target=answer)
    thread.start()
    turns._step_back()
    thread.join()
    assert turns._news.is_set()
    turns._step_back()  # it has answered since it was looked at: this does not wait
    loop.finish()

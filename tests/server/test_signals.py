"""What a stop signal does where the process is ours; the counting itself is ``drain.escalation``'s."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import sys
import threading
import time
from typing import Any

import pytest

from lastcall.server.signals import STOP_SIGNALS, SignalHandler, waking


class Orders:
    """Takes a SignalHandler's orders and keeps them."""

    def __init__(self) -> None:
        self.importing = False
        self.starting = False
        self.heard: list[tuple[str, int] | str] = []

    def signal_received(self, name: str, level: int) -> None:
        self.heard.append((name, level))

    def abandon_now(self) -> None:
        self.heard.append("abandoned")


class Clock:
    """``time.monotonic`` that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_three_signals_are_order_force_and_the_end(clock: Clock) -> None:
    orders = Orders()
    handler = SignalHandler(orders, own_process=True)
    for _ in range(3):
        handler.handle(signal.SIGTERM, None)
        clock.now += 1
    assert orders.heard[:3] == [("SIGTERM", 1), ("SIGTERM", 2), "abandoned"]


def test_in_a_process_of_somebody_elses_the_third_signal_does_not_end_it(clock: Clock) -> None:
    orders = Orders()
    orders.starting = True
    handler = SignalHandler(orders, own_process=False)
    for _ in range(4):
        handler.handle(signal.SIGINT, None)
        clock.now += 1
    assert orders.heard == [("SIGINT", 1), ("SIGINT", 2), ("SIGINT", 2)]


def test_signals_within_half_a_second_are_one(clock: Clock) -> None:
    orders = Orders()
    handler = SignalHandler(orders, own_process=True)
    handler.handle(signal.SIGTERM, None)
    clock.now += 0.4
    handler.handle(signal.SIGINT, None)
    assert orders.heard == [("SIGTERM", 1)]


def test_an_import_is_interrupted_by_an_exception(clock: Clock) -> None:
    orders = Orders()
    orders.importing = orders.starting = True
    with pytest.raises(KeyboardInterrupt):
        SignalHandler(orders, own_process=True).handle(signal.SIGTERM, None)
    assert orders.heard == [("SIGTERM", 1)]


def test_without_a_standard_error_nothing_is_written_anywhere(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "__stderr__", None)  # then descriptor 2 may be a client's connection
    handler = SignalHandler(Orders(), own_process=True)
    for _ in range(3):
        handler.handle(signal.SIGTERM, None)
        clock.now += 1
    assert capfd.readouterr().err == ""


def test_the_earlier_handlers_come_back_and_no_signal_is_raised_again() -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    orders = Orders()
    handler = SignalHandler(orders, own_process=False)
    handler.install()
    try:
        assert all(signal.getsignal(number) == handler.handle for number in STOP_SIGNALS)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        handler.restore()
    assert orders.heard == [("SIGTERM", 1)]
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


def test_a_handler_of_somebody_elses_in_our_place_is_noticed_and_another_servers_is_none() -> None:
    first, second = (SignalHandler(Orders(), own_process=False) for _ in range(2))
    first.install()
    second.install()
    earlier = signal.getsignal(signal.SIGTERM)
    try:
        assert first.replaced() == second.replaced() == []
        signal.signal(signal.SIGTERM, lambda *_: None)
        assert first.replaced() == second.replaced() == ["SIGTERM"]
    finally:
        signal.signal(signal.SIGTERM, earlier)
        second.restore()
        first.restore()
    thread = threading.Thread(target=lambda: SignalHandler(Orders(), own_process=False).install())
    thread.start()
    thread.join()
    assert SignalHandler(Orders(), own_process=False).replaced() == [], "never installed, so nobody took its place"


def test_outside_the_main_thread_nothing_is_installed() -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handler = SignalHandler(Orders(), own_process=False)

    def install_and_restore() -> None:
        handler.install()
        handler.restore()

    thread = threading.Thread(target=install_and_restore)
    thread.start()
    thread.join()
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


# -- a loop that sleeps -----------------------------------------------------------------------------------------------


def wakeup_descriptor() -> int:
    """The descriptor that Python writes to when a signal comes; -1: none."""
    found = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(found, warn_on_full_buffer=False)
    return found


def test_a_signal_wakes_a_loop_that_went_to_sleep_in_the_same_moment() -> None:
    """Python writes to the descriptor when the signal comes, whether or not it still gets to run the handler."""

    class Selector(selectors.DefaultSelector):
        """Counts the turns of its loop."""

        turns = 0

        def select(self, timeout: float | None = None) -> Any:
            Selector.turns += 1
            return super().select(timeout)

    loop = asyncio.SelectorEventLoop(Selector())
    with waking(loop):
        timer = threading.Timer(0.05, os.write, (wakeup_descriptor(), bytes([signal.SIGTERM])))
        timer.start()
        before = Selector.turns
        loop.call_later(0.4, loop.stop)
        loop.run_forever()
        timer.join()
    loop.close()
    assert wakeup_descriptor() == -1
    assert Selector.turns - before == 2, "asleep until the byte comes, and again until the timer"


def test_who_has_a_wake_up_descriptor_keeps_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)
        before = wakeup_descriptor()
        with waking(loop):
            assert wakeup_descriptor() == before != -1
        assert wakeup_descriptor() == before
        loop.remove_signal_handler(signal.SIGUSR1)
        with waking(loop):
            loop.add_signal_handler(signal.SIGUSR1, lambda: None)
            later = wakeup_descriptor()
        assert wakeup_descriptor() == later != -1, "set by the application while the server ran"
        loop.remove_signal_handler(signal.SIGUSR1)

    asyncio.run(main())


def test_outside_the_main_thread_no_descriptor_is_set() -> None:
    found: list[int] = []

    async def main() -> None:
        with waking(asyncio.get_running_loop()):
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    found.append(wakeup_descriptor())
    assert found == [-1]

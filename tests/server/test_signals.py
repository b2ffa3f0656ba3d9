"""What a stop signal is turned into; the counting itself is ``drain.escalation``'s, the third signal the watchdog's."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from lastcall.server import sigaction
from lastcall.server.signals import STOP_SIGNALS, SignalHandler, waking


class Orders:
    """Takes a SignalHandler's orders and keeps them."""

    def __init__(self) -> None:
        self.importing = False
        self.starting = False
        self.heard: list[tuple[str, int] | str] = []

    def interrupt_start(self) -> bool:
        raise AssertionError("nobody has a watchdog here")

    def signal_received(self, name: str, level: int) -> None:
        self.heard.append((name, level))


class Clock:
    """``time.monotonic`` that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_first_signal_is_an_order_and_more_order_to_cancel(clock: Clock) -> None:
    orders = Orders()
    handler = SignalHandler(orders)
    for _ in range(4):
        handler.handle(signal.SIGINT, None)
        clock.now += 1
    assert orders.heard == [("SIGINT", 1), ("SIGINT", 2), ("SIGINT", 2)]


def test_signals_within_half_a_second_are_one(clock: Clock) -> None:
    orders = Orders()
    handler = SignalHandler(orders)
    handler.handle(signal.SIGTERM, None)
    clock.now += 0.4
    handler.handle(signal.SIGINT, None)
    assert orders.heard == [("SIGTERM", 1)]


def test_another_signal_that_somebody_gives_to_our_handler_is_a_stop_order_too(clock: Clock) -> None:
    orders = Orders()
    handler = SignalHandler(orders)
    handler.handle(signal.SIGHUP, None)
    assert orders.heard == [("SIGHUP", 1)]
    with pytest.raises(ValueError, match="out of range"):
        handler.handle(1000, None)


def test_an_import_is_interrupted_by_an_exception(clock: Clock) -> None:
    orders = Orders()
    orders.importing = orders.starting = True
    with pytest.raises(KeyboardInterrupt):
        SignalHandler(orders).handle(signal.SIGTERM, None)
    assert orders.heard == [("SIGTERM", 1)]


def test_the_earlier_handlers_come_back_and_no_signal_is_raised_again() -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    orders = Orders()
    handler = SignalHandler(orders)
    handler.install()
    try:
        assert all(signal.getsignal(number) == handler.handle for number in STOP_SIGNALS)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        handler.restore()
    assert orders.heard == [("SIGTERM", 1)]
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


def test_a_handler_of_somebody_elses_in_our_place_is_noticed_and_another_servers_is_none() -> None:
    first, second = (SignalHandler(Orders()) for _ in range(2))
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
    thread = threading.Thread(target=lambda: SignalHandler(Orders()).install())
    thread.start()
    thread.join()
    assert SignalHandler(Orders()).replaced() == [], "never installed, so nobody took its place"


def test_outside_the_main_thread_nothing_is_installed() -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handler = SignalHandler(Orders())

    def install_and_restore() -> None:
        handler.install()
        handler.restore()

    thread = threading.Thread(target=install_and_restore)
    thread.start()
    thread.join()
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


SIGNALLER = """
import os, time
print("ready", flush=True)
for _ in range(2):
    time.sleep(0.6)
    os.kill(os.getppid(), 15)
"""


def test_signals_that_python_hears_of_late_are_counted_by_the_times_at_which_they_came() -> None:
    """While one C call runs, all that come of one kind are one call of the handler."""
    orders = Orders()
    handler = SignalHandler(orders)
    handler.install()
    try:
        with subprocess.Popen([sys.executable, "-c", SIGNALLER], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            end = time.monotonic() + 1.5
            next(filter(end.__lt__, iter(time.monotonic, None)))  # one call, in C
    finally:
        handler.restore()
    assert orders.heard == [("SIGTERM", 1), ("SIGTERM", 2)]


# -- a loop that sleeps -----------------------------------------------------------------------------------------------


class Selector(selectors.DefaultSelector):
    """Counts the turns of its loop."""

    turns = 0

    def select(self, timeout: float | None = None) -> Any:
        self.turns += 1
        return super().select(timeout)


def test_a_signal_that_another_thread_gets_wakes_the_loop() -> None:
    """Python's handler in C runs there, where nothing blocks; the one in Python has to wait for the main thread."""
    orders = Orders()
    handler = SignalHandler(orders)
    handler.install()
    selector = Selector()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        with waking(loop):
            thread = threading.Timer(0.05, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
            before = selector.turns
            thread.start()
            loop.call_later(0.4, loop.stop)
            loop.run_forever()
            thread.join()
            turns = selector.turns - before
    finally:
        loop.close()
        handler.restore()
    assert orders.heard == [("SIGTERM", 1)]
    assert turns == 2, "asleep until the signal comes, and again until the timer"


def test_loops_are_woken_by_descriptors_that_are_used_again() -> None:
    handler = SignalHandler(Orders())
    handler.install()
    try:
        found = []
        for _ in range(3):
            one, other = sigaction.open_waker(), sigaction.open_waker()
            os.kill(os.getpid(), signal.SIGTERM)
            found.append([os.read(waker[0], 10) for waker in (one, other)])
            os.kill(os.getpid(), signal.SIGTERM)  # what nobody has read is nothing to the next
            sigaction.close_waker(one)
            sigaction.close_waker(other)
        fresh = sigaction.open_waker()
        with pytest.raises(BlockingIOError):
            os.read(fresh[0], 10)
        sigaction.close_waker(fresh)
    finally:
        handler.restore()
    assert found == [[b"\0", b"\0"]] * 3
    assert fresh in (one, other)


def test_outside_the_main_thread_nothing_is_watched() -> None:
    found: list[int] = []

    async def main() -> None:
        before = len(selector.get_map())
        with waking(asyncio.get_running_loop()):
            found.append(len(selector.get_map()) - before)

    selector = selectors.DefaultSelector()
    loop = asyncio.SelectorEventLoop(selector)
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    thread.join()
    loop.close()
    assert found == [0]


# -- the handler in C -------------------------------------------------------------------------------------------------


def test_the_last_to_install_a_handler_has_the_signal() -> None:
    handler = SignalHandler(Orders())
    assert not sigaction.is_caught(signal.SIGTERM)
    handler.install()
    earlier = signal.getsignal(signal.SIGTERM)
    try:
        assert all(sigaction.is_caught(signum) for signum in STOP_SIGNALS)
        signal.siginterrupt(signal.SIGTERM, False)
        assert sigaction.is_caught(signal.SIGTERM), "it is another flag of the same handler"
        signal.signal(signal.SIGTERM, earlier)
        assert not sigaction.is_caught(signal.SIGTERM)
    finally:
        handler.restore()
    assert not any(sigaction.is_caught(signum) for signum in STOP_SIGNALS)


def test_a_handler_that_calls_ours_is_heard_and_so_is_one_that_comes_back() -> None:
    first, second = Orders(), Orders()
    outer, inner = SignalHandler(first), SignalHandler(second)
    outer.install()
    inner.install()
    try:
        mine = signal.getsignal(signal.SIGTERM)

        def call_it(signum: int, frame: FrameType | None) -> None:
            inner.handle(signum, frame)

        signal.signal(signal.SIGTERM, call_it)
        os.kill(os.getpid(), signal.SIGTERM)
        assert second.heard == first.heard == [("SIGTERM", 1)]
        signal.signal(signal.SIGTERM, mine)
    finally:
        inner.restore()
        assert sigaction.is_caught(signal.SIGTERM), "the outer one's, again"
        os.kill(os.getpid(), signal.SIGQUIT)
        outer.restore()
    assert second.heard == [("SIGTERM", 1)]
    assert first.heard == [("SIGTERM", 1), ("SIGQUIT", 2)]


def test_more_signals_than_are_kept_are_a_burst_and_cost_the_oldest() -> None:
    earlier = signal.signal(signal.SIGUSR1, lambda *_: None)
    sigaction.catch(signal.SIGUSR1)
    sigaction.skip()
    try:
        for _ in range(100):
            signal.raise_signal(signal.SIGUSR1)
        before = time.monotonic()
        found, once_more = sigaction.take(signal.SIGUSR1, before)
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    assert [number for number, _ in found] == [signal.SIGUSR1] * 64
    assert [when for _, when in found] == sorted(when for _, when in found)
    assert found[-1][1] <= before
    assert not once_more
    assert sigaction.take(signal.SIGUSR1, 100.0) == ([(signal.SIGUSR1, 100.0)], False), "a call that no signal made"


def test_a_forked_child_has_the_earlier_handlers_and_wakes_nobody() -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handler = SignalHandler(Orders())
    handler.install()
    waker = sigaction.open_waker()
    try:
        child = os.fork()
        if child == 0:
            try:
                ours = any(map(sigaction.is_caught, STOP_SIGNALS))
                back = all(signal.getsignal(number) == earlier for number, earlier in before.items())
                signal.signal(signal.SIGTERM, lambda *_: None)
                signal.raise_signal(signal.SIGTERM)
                os._exit(ours or not back)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(BlockingIOError):
            os.read(waker[0], 1)
        assert all(map(sigaction.is_caught, STOP_SIGNALS)), "the parent's are as they were"
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(STOP_SIGNALS)
    finally:
        sigaction.close_waker(waker)
        handler.restore()

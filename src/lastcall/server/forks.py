"""Children that are forked from this process while a server runs: they carry none of it with them.

Theory of operation
-------------------
A forked child (``os.fork``, multiprocessing's fork context, ``ProcessPoolExecutor``) has a copy of everything: signal
handlers, listening sockets, connections, and the loop's poll set, which it even shares with its parent. Each is a
trap. Our handlers keep ``Process.terminate()`` from ending it; a listener that it holds keeps the port; and a child
that falls back into the loop (``if os.fork() == 0: sys.exit(0)`` in a handler) takes its parent's connections from it.

So whoever has something that a child must not have says how to let go of it, for as long as he has it
(``let_go_in_children``), and that is done in the child before ``fork()`` returns. Descriptors are closed, and nothing
more: to unregister one from a poll set, to end TLS or to shut a socket down would reach the parent's.

A loop cannot be closed, since it may be running. ``leave_loop`` gives the child a poll set of its own, an empty one,
and makes the end of the process, by ``os._exit``, the next and only thing that the loop has to do; a child of another
thread ends when that has a result for the loop. Where an application is called, the caller looks as well
(``lastcall.base.lineage``), so that nothing is logged or written in between. What the child itself calls of the loop
before that must not end it: destructors do (of async generators, of streams), and so do log handlers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from lastcall.base.lineage import leave

DISPATCHERS = {"anyio", "asgiref", "asyncio", "concurrent", "lastcall", "threading"}
"""Packages that run an application's functions in threads of theirs."""

STOP_SIGNALS = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGQUIT") if hasattr(signal, name)}

_carried: list[Callable[[], object]] = []
_masks: dict[int, set[int]] = {}  # of the threads that fork just now


@contextmanager
def let_go_in_children(let_go: Callable[[], object]) -> Iterator[None]:
    """Have ``let_go()`` called in every child that is forked while the block runs, in its only thread."""
    _hook()
    _carried.append(let_go)
    try:
        yield
    finally:
        with suppress(ValueError):  # in a child that goes through its parent's clean-up
            _carried.remove(let_go)


@functools.cache
def _hook() -> None:
    """Register the hooks, for good: there is no way to take them back. They do nothing where nothing is carried."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=_unblock, after_in_child=_in_child)


def _before() -> None:
    """Hold back what would end the child until it has its own handlers: ours, which it has at first, would take it.

    ``Process.start()`` followed by ``terminate()`` is quicker than the child.
    """
    if _carried:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _unblock() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    try:
        _let_go()
    finally:
        _unblock()
        _masks.clear()


def _let_go() -> None:
    carried = _carried.copy()
    _carried.clear()  # the child may run a server of its own
    for let_go in carried:
        with suppress(Exception):  # what cannot be let go of must not hold the rest, and nobody could be told
            let_go()


def leave_loop(loop: asyncio.AbstractEventLoop, *, thread: int, ours: bool) -> None:
    """In a child: let go of the parent's event loop. Control that comes back to it ends the child.

    ``thread`` is the one that ran it (``threading.get_ident()``). ``ours``: nobody but us has made it, so that its
    other descriptors are closed too.
    """
    with suppress(ValueError):  # a thread that Python does not take for the main one
        signal.set_wakeup_fd(-1)
    poll = _poll_set(loop)
    if poll >= 0:
        empty = select.epoll()
        os.dup2(empty.fileno(), poll, inheritable=False)
        empty.close()
    if ours:
        for name in ("_ssock", "_csock"):  # asyncio's pipe to itself
            with suppress(AttributeError, OSError):
                getattr(loop, name).close()
    if thread == threading.get_ident():
        for ready in gc.get_referents(loop, getattr(loop, "__dict__", None)):
            if isinstance(ready, deque):  # what would run next in this turn; uvloop's has no name to ask for
                ready.clear()
        loop.call_soon(_end_turn, loop)
    else:
        _watch_thread(loop)


def _end_turn(loop: asyncio.AbstractEventLoop) -> None:
    """The only callback of a child's loop. uvloop calls it even when a task has raised SystemExit, and keeps that."""
    leave(next((found for found in gc.get_referents(loop) if isinstance(found, SystemExit | KeyboardInterrupt)), None))


def _watch_thread(loop: asyncio.AbstractEventLoop) -> None:
    """In a child of a pool's thread, which has no loop: end it when the thread has a result for the loop.

    That is, when nothing of the application's is left on the stack that was there when it forked. Before, the child
    may well call the loop (a log handler does), and nobody hears of it: ending it then would end its work.
    """
    base = None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in DISPATCHERS:
            base = frame
        frame = frame.f_back
    if base is None:
        return

    def call_soon_threadsafe(
        callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame is not base:
            frame = frame.f_back
        if frame is None:
            leave(_exception_in(args))
        return asyncio.Handle(callback, args, loop, context)

    with suppress(AttributeError, TypeError):  # a loop that has no attributes of its own
        loop.call_soon_threadsafe = call_soon_threadsafe  # type: ignore[assignment]


def _poll_set(loop: Any) -> int:
    """The descriptor of the loop's poll set, if that is one that a child shares with its parent; else -1.

    asyncio's selector has one if it is an epoll set; uvloop's method is there for tests.
    """
    if hasattr(loop, "_get_backend_id"):
        return int(loop._get_backend_id())
    selector: Any = getattr(loop, "_selector", None)
    return int(selector.fileno()) if hasattr(select, "epoll") and hasattr(selector, "fileno") else -1


def _exception_in(args: Iterable[object]) -> BaseException | None:
    """What a result that is handed to a loop says of how the work has ended."""
    for found in args:
        if isinstance(found, BaseException):
            return found
        if isinstance(found, asyncio.Future | concurrent.futures.Future) and found.done() and not found.cancelled():
            return found.exception()
    return None

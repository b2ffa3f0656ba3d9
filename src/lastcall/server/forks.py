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
and lets every way back into the loop end the process by ``os._exit``: the next step of a task, a callback from another
thread, the next turn. Where an application is called, the caller looks as well (``lastcall.base.lineage``), so that
nothing is logged or written in between.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from lastcall.base.lineage import leave

WAYS_BACK = ("call_soon", "call_soon_threadsafe", "call_later", "call_at")
"""Methods of a loop by which tasks go on: with each, control would come back to the loop."""

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


def leave_loop(loop: asyncio.AbstractEventLoop, *, ours: bool) -> None:
    """In a child: let go of the parent's event loop. Control that comes back to it ends the child.

    ``ours``: nobody but us has made it, so that its other descriptors are closed too.
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
    for ready in gc.get_referents(loop, getattr(loop, "__dict__", None)):
        if isinstance(ready, deque):  # what would run next in this turn; uvloop's has no name to ask for
            ready.clear()
    with suppress(RuntimeError):  # in debug mode, from a thread that is not the loop's: nobody will run it
        loop.call_soon(leave)
    for name in WAYS_BACK:
        with suppress(AttributeError, TypeError):  # of a loop that has no attributes of its own
            setattr(loop, name, _come_back)


def _poll_set(loop: Any) -> int:
    """The descriptor of the loop's poll set, if that is one that a child shares with its parent; else -1.

    asyncio's selector has one if it is an epoll set; uvloop's method is there for tests.
    """
    if hasattr(loop, "_get_backend_id"):
        return int(loop._get_backend_id())
    selector: Any = getattr(loop, "_selector", None)
    return int(selector.fileno()) if hasattr(select, "epoll") and hasattr(selector, "fileno") else -1


def _come_back(*args: object, **_keywords: object) -> NoReturn:
    """In place of a loop's method: a task, or a thread, has something for the loop, and with it the child has ended."""
    for found in args:
        if isinstance(found, BaseException):
            leave(found)
        if isinstance(found, asyncio.Future | concurrent.futures.Future) and found.done() and not found.cancelled():
            leave(found.exception())
    leave()

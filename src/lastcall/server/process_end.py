"""The end of a process of our own, behind its event loop: threads, then child processes, waited for in bounded time.

The interpreter joins every thread that is no daemon, and multiprocessing every child, without limit. Neither can be
asked to end, so what is left when the time is over is named, and the process leaves without it: exit code 5.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from lastcall.base.exit_code import ExitCode
from lastcall.drain.ladder import TEARDOWN
from lastcall.server.teardown import LAST_TURNS

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

logger = logging.getLogger("lastcall.error")

LOOK_AGAIN = 0.02
"""Seconds between two looks at what tells nobody that it has changed: a pool that becomes idle, a child that ends."""


class ProcessEnd:
    """What is done when the loop is closed. Make it before the application is imported.

    ``final``: the process ends next. Then the exit hooks of the ``threading`` module run early, which ends every pool
    that is idle, and an ``atexit`` function of ours takes the place of multiprocessing's. Otherwise the program goes
    on, and may want its pools and its children. ``amend(code)`` is told the exit code where the report has another.
    ``again(seconds, since)`` is asked when the time is over, and gives more: the process may have stood still.
    """

    def __init__(self, *, final: bool, amend: Callable[[int], object], again: Callable[[float, float], float]) -> None:
        self._older = frozenset(threading.enumerate())
        self._final = final
        self._amend = amend
        self._again = again
        self._end = 0.0
        self._code: int = ExitCode.STOPPED
        if final:
            # Among the first to be registered: the application's functions, which may end its children, come before.
            atexit.register(self._end_children)

    def leave_threads(self, end: float, code: int) -> None:
        """Wait for the application's threads until ``end`` (``time.monotonic()``).

        Where one is left then, end the process: with ``code``, or with 5 if that is higher.
        """
        self._end = max(end, time.monotonic() + LAST_TURNS)
        self._code = code
        if self._final:
            _run_exit_hooks(self._end)
            _forget_multiprocessing()
        while staying := self._at_work():
            left = self._end - time.monotonic()
            if left <= 0:
                left = self._again(TEARDOWN, self._end - TEARDOWN)
                self._end = time.monotonic() + left
            if left <= 0:
                break
            staying[0].join(min(LOOK_AGAIN, left))
        if not staying:
            return
        error = sys.exception()
        if error is not None:
            traceback.print_exception(error)  # nobody else will
        self._abandon("threads that do not end", map(_name_of, staying))
        # Interpreter shutdown would join them: run what it would have run, and go.
        _forget_multiprocessing()
        atexit._run_exitfuncs()
        self._end_children()
        self._go()

    def _at_work(self) -> list[threading.Thread]:
        """Threads that would keep the interpreter from ending, but for those of pools that have nothing to do."""
        frames = sys._current_frames()
        return [
            thread
            for thread in threading.enumerate()
            if not thread.daemon
            and thread not in self._older
            and thread is not threading.current_thread()
            and not _is_idle(thread, frames)
        ]

    def _end_children(self) -> None:
        """End the processes that multiprocessing has started, as its own exit function does, but in bounded time."""
        left = _end_multiprocessing(max(self._end, time.monotonic() + LAST_TURNS))
        if left:
            self._abandon("child processes that do not end", left)
            self._go()

    def _abandon(self, what: str, names: Iterable[str]) -> None:
        self._code = max(self._code, ExitCode.ABANDONED)
        logger.error("Abandoned, %s: %s; exit code %d", what, ", ".join(names), self._code)
        self._amend(self._code)

    def _go(self) -> NoReturn:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue
        os._exit(self._code)


def _name_of(thread: threading.Thread) -> str:
    return f"{thread.name} (of a ProcessPoolExecutor)" if _is_manager(thread) else thread.name


def _is_manager(thread: threading.Thread) -> bool:
    """Whether it is the thread that each ``ProcessPoolExecutor`` has, which is no daemon and has no name of its own."""
    module = sys.modules.get("concurrent.futures.process")
    return module is not None and isinstance(thread, module._ExecutorManagerThread)


def _is_idle(thread: threading.Thread, frames: dict[int, Any]) -> bool:
    """Whether it is a thread of a pool of ``concurrent.futures`` that waits for work.

    A worker that is in a call has a frame of that call on top. In the compiled ``get()`` of its queue it has none.
    The thread that manages a pool of processes has a list of what they are working on.
    """
    workers = sys.modules.get("concurrent.futures.thread")
    frame = frames.get(thread.ident or 0)
    if workers is not None and frame is not None and frame.f_code is workers._worker.__code__:
        return True
    return _is_manager(thread) and not thread.pending_work_items  # type: ignore[attr-defined]


def _run_exit_hooks(end: float) -> None:
    """Run what the interpreter runs before it joins threads, which ends the pools of ``concurrent.futures``.

    A hook joins the pool's threads, those too that are in a call: each runs in a daemon thread, and the next one begins
    a moment later even if it has not returned. What has run cannot be undone, and does not run a second time.
    """
    hooks: list[Callable[[], object]] = getattr(threading, "_threading_atexits", [])
    running = []
    while hooks:
        running.append(_beside(hooks.pop(), min(end, time.monotonic() + LAST_TURNS)))
    for thread in running:
        thread.join(max(0.0, end - time.monotonic()))


def _beside(work: Callable[[], object], end: float) -> threading.Thread:
    """Run ``work`` in a daemon thread, and wait for it until ``end``."""

    def run() -> None:
        try:
            work()
        except BaseException:
            logger.exception("A function that runs at the end of the interpreter failed")

    thread = threading.Thread(target=run, name="lastcall-end", daemon=True)
    thread.start()
    thread.join(max(0.0, end - time.monotonic()))
    return thread


def _forget_multiprocessing() -> None:
    """Keep multiprocessing's exit function, which joins children for as long as they live, from being called."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        atexit.unregister(util._exit_function)


def _end_multiprocessing(end: float) -> list[str]:
    """What multiprocessing does at the end of a process, until ``end``; return the names of what is left then.

    Its finalizers run (pools, queues, managers), daemon children are told to end, and killed at ``end``; the others are
    waited for. Those that are left have to look after themselves, but for the workers of a ``ProcessPoolExecutor``:
    without it they would wait for work for ever.
    """
    util: Any = sys.modules.get("multiprocessing.util")
    process: Any = sys.modules.get("multiprocessing.process")
    if util is None or process is None or util._exiting:
        return []
    util._exiting = True
    finalizers = [_beside(lambda: util._run_finalizers(0), end)]
    children: list[BaseProcess] = process.active_children()
    for child in children:
        if child.daemon:
            child.terminate()
    while (children := [child for child in children if child.is_alive()]) and time.monotonic() < end:
        time.sleep(LOOK_AGAIN)
    for child in children:
        if child.daemon:
            child.kill()
        elif child.pid in _pool_workers():
            child.terminate()
    finalizers.append(_beside(util._run_finalizers, max(end, time.monotonic() + LAST_TURNS)))
    left = [f"{child.name} (pid {child.pid})" for child in children if not child.daemon]
    if any(thread.is_alive() for thread in finalizers):
        left.append("multiprocessing's own finalizers")
    return left


def _pool_workers() -> set[int | None]:
    """The process ids of all workers of every ``ProcessPoolExecutor``."""
    managers: list[Any] = [thread for thread in threading.enumerate() if _is_manager(thread)]
    return {pid for manager in managers for pid in (manager.processes or ())}

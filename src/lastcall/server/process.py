"""A process of our own: what only the command and ``lastcall.run()`` may do to it."""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import gc
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from lastcall.drain.ladder import TEARDOWN
from lastcall.drain.report import StopReport
from lastcall.observe.logs import configure_logging
from lastcall.server.loops import loop_factory
from lastcall.server.server import Server
from lastcall.server.signals import SignalFace
from lastcall.server.teardown import close_loop

if TYPE_CHECKING:
    from lastcall.config import Config

logger = logging.getLogger("lastcall.error")

ABANDONED = 5
WATCHDOG_MARGIN = 0.5


def run_process(config: Config) -> int:
    """Serve in this process until it is told to stop; return the exit code.

    Owns the event loop, the signal handlers and the teardown. Raises StartupError and ConfigError before anything is
    served. Does not return, but ends the process with code 5, where threads would keep it from ending.
    """
    configure_logging(config.options.log)
    server = _ProcessServer(config)
    face = SignalFace(server, own_process=True)
    threads = set(threading.enumerate())
    face.install()
    try:
        loop = loop_factory(config.options.loop)()
        try:
            report = _run(loop, server, face)
        finally:
            code_of_tasks = ABANDONED if close_loop(loop) else 0
    finally:
        face.restore()
        faulthandler.cancel_dump_traceback_later()
        gc.unfreeze()
    code = max(report.exit_code, code_of_tasks)
    _leave_threads(threads, TEARDOWN)
    return code


def _run(loop: asyncio.AbstractEventLoop, server: Server, face: SignalFace) -> StopReport:
    """Run the server to its end, also where a task of the application's calls ``sys.exit()``.

    Asyncio lets SystemExit and KeyboardInterrupt out of the loop, whatever else runs in it. They are raised here when
    the server has stopped in good order.
    """
    serving = loop.create_task(server.serve_under(face))
    left: BaseException | None = None
    while True:
        try:
            report = loop.run_until_complete(serving)
        except (SystemExit, KeyboardInterrupt) as exc:
            if serving.done():
                raise
            logger.error("A task of the application raised %r out of the event loop: stopping.", exc)
            left = exc
            server.drain(type(exc).__name__)
        else:
            break
    if left is not None:
        raise left
    return report


class _ProcessServer(Server):
    """A server that may arm the watchdog and tune the garbage collector: the process is its own."""

    def ready(self) -> None:
        if self.config.options.gc_freeze:
            # What start-up made stays for good: the collector need not look at it again.
            gc.collect()
            gc.freeze()

    def stopping(self, worst_case: float) -> None:
        # Works without the GIL: where the loop, or all of Python, hangs, it dumps every stack and exits 1.
        try:
            where = -1 if sys.__stderr__ is None else sys.__stderr__.fileno()
        except (OSError, ValueError):
            where = -1
        if where < 0:
            where = os.open(os.devnull, os.O_WRONLY)  # nobody to tell, but the end comes all the same
        faulthandler.dump_traceback_later(worst_case + WATCHDOG_MARGIN, exit=True, file=where)


def _leave_threads(before: set[threading.Thread], timeout: float) -> None:
    """Give threads that the application has started a moment; the interpreter would wait for them for ever."""
    end = time.monotonic() + timeout
    for thread in threading.enumerate():
        if thread in before or thread.daemon or thread is threading.current_thread():
            continue
        thread.join(max(0.0, end - time.monotonic()))
    left = [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.daemon and thread is not threading.current_thread()
    ]
    if left:
        names = ", ".join(thread.name for thread in left)
        logger.error("Abandoned, threads that do not end: %s; exit code %d", names, ABANDONED)
        # Interpreter shutdown would join them: run what it would have run, and go.
        atexit._run_exitfuncs()
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue
        os._exit(ABANDONED)

"""A process of our own: what only the command and ``lastcall.run()`` may do to it."""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import gc
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lastcall.base.errors import LastcallError
from lastcall.base.exit_code import ExitCode
from lastcall.drain.ladder import TEARDOWN, Budgets, Phase, State, time_left
from lastcall.observe.logs import configure_logging
from lastcall.server.loops import make_loop, refuse_running_loop, run_until_done
from lastcall.server.process_end import ProcessEnd
from lastcall.server.server import Server, budgets_of
from lastcall.server.signals import SignalHandler
from lastcall.server.teardown import close_loop

if TYPE_CHECKING:
    from lastcall.config import Config

logger = logging.getLogger("lastcall.error")

WATCHDOG_MARGIN = 0.5


def run_process(config: Config, *, tell: Callable[[LastcallError], int], final: bool) -> int:
    """Serve in this process until it is told to stop; return the exit code.

    Owns the event loop, the signal handlers and the teardown. ``tell`` is given the ConfigError or StartupError that
    kept the server from serving, and returns its exit code.

    ``final``: nothing but the end of the process follows. Then the signal handlers and the watchdog stay, so that the
    end, ``atexit`` functions included, is bounded and never that of a signal. Otherwise both are gone on return.

    Does not return, but ends the process, where threads or child processes would keep it from ending. Raises
    RuntimeError, before anything is done, in a running event loop.
    """
    refuse_running_loop()
    configure_logging(config.options.log)
    guard = ProcessGuard(budgets_of(config.options.stop), gc_freeze=config.options.gc_freeze, final=final)
    server = Server(config)
    handler = SignalHandler(server, own_process=True)
    handler.install()
    if final:
        # The first to be registered is the last to be called: the application's functions still have the handlers.
        atexit.register(handler.ignore)
    process_end = ProcessEnd(final=final)
    code: int = ExitCode.STOPPED
    end = time.monotonic()
    try:
        try:
            loop = make_loop(config.options.loop)
            try:
                code = _run(loop, server, handler, guard)
            finally:
                end = time.monotonic() + TEARDOWN
                guard.bound_the_end()
                with suppress(KeyboardInterrupt):  # a task's own: ours come to the handler
                    if close_loop(loop, named=server.abandoned()):
                        code = max(code, ExitCode.ABANDONED)
        except LastcallError as error:
            code = max(code, tell(error))
        finally:
            process_end.leave_threads(end, code)
    finally:
        if not final:
            handler.restore()
            faulthandler.cancel_dump_traceback_later()
        guard.thaw()
    return code


def _run(loop: asyncio.AbstractEventLoop, server: Server, handler: SignalHandler, guard: ProcessGuard) -> int:
    """Run the server to its end, whatever comes out of the loop before; the exit code.

    SystemExit and KeyboardInterrupt are an order to stop like any other, and a SystemExit's code counts if the server's
    own is not higher. Anything else is a failure: the stop begins with cancelling what runs.
    """
    code = 0

    def came_out(exc: BaseException) -> None:
        nonlocal code
        if isinstance(exc, SystemExit | KeyboardInterrupt):
            logger.error("A task of the application raised %r out of the event loop: stopping.", exc)
            code = max(code, _exit_code(exc))
            _hush(loop, exc)
            server.drain(type(exc).__name__)
        else:
            server.loop_failed(exc)

    serving = asyncio.Task(server.serve_under(handler, guard=guard), loop=loop)
    run_until_done(loop, serving, came_out)
    return max(code, serving.result().exit_code)


def _hush(loop: asyncio.AbstractEventLoop, told: BaseException) -> None:
    """Keep the loop from reporting ``told`` as never retrieved when its task is destroyed, maybe at the very end."""
    earlier = loop.get_exception_handler()

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("exception") is told:
            return
        if earlier is None:
            loop.default_exception_handler(context)
        else:
            earlier(loop, context)

    loop.set_exception_handler(handler)


def _exit_code(exc: SystemExit | KeyboardInterrupt) -> int:
    """What the interpreter would make of it, in the eight bits that the system keeps."""
    if isinstance(exc, KeyboardInterrupt) or exc.code is None:
        return 0
    return exc.code & 0xFF if isinstance(exc.code, int) else 1


class ProcessGuard:
    """What only a process of our own may do for its server: the watchdog, and the garbage collector's settings."""

    def __init__(self, budgets: Budgets, *, gc_freeze: bool, final: bool) -> None:
        self._budgets = budgets
        self._gc_freeze = gc_freeze
        self._final = final
        self._bounded = False
        self._frozen = False

    def ready(self) -> None:
        """The server serves: what start-up made stays for good, and the collector need not look at it again."""
        if self._gc_freeze:
            gc.collect()
            self._frozen = self._final or gc.get_freeze_count() == 0
            gc.freeze()

    def thaw(self) -> None:
        """Undo what ``ready()`` froze. Where the program had frozen objects before, that cannot be told apart.

        The command has frozen its own modules before, and all of it goes with the process that ends next.
        """
        if self._frozen:
            gc.unfreeze()

    def bound(self, seconds: float) -> None:
        """Arm the watchdog: in ``seconds``, and a little, the process ends, whatever hangs.

        It works without the GIL: where the loop, or all of Python, hangs, it dumps every stack and exits 1.
        """
        self._bounded = True
        try:
            where = -1 if sys.__stderr__ is None else sys.__stderr__.fileno()
        except (OSError, ValueError):
            where = -1
        if where < 0:
            where = os.open(os.devnull, os.O_WRONLY)  # nobody to tell, but the end comes all the same
        faulthandler.dump_traceback_later(seconds + WATCHDOG_MARGIN, exit=True, file=where)

    def bound_the_end(self) -> None:
        """Arm the watchdog if no stop order has: after a failed start, say."""
        left = time_left(State(Phase.CLOSING), 0.0, self._budgets)
        if not self._bounded and left < math.inf:
            self.bound(left)

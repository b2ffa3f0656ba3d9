"""A process of our own: what only the command and ``lastcall.run()`` may do to it."""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import gc
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lastcall.asgi.loading import prepare
from lastcall.base.errors import LastcallError, StartupError
from lastcall.base.exit_code import ExitCode
from lastcall.base.lineage import exit_code
from lastcall.base.record import replace
from lastcall.drain.ladder import TEARDOWN, Budgets, Phase, State, signal_times, time_left
from lastcall.observe.logs import configure_logging
from lastcall.server import sigaction, watchdog
from lastcall.server.loops import make_loop, refuse_running_loop, run_until_done
from lastcall.server.manager import ServiceManager
from lastcall.server.other_signals import HangUp, listening
from lastcall.server.own_process import OwnProcess, on_systemds_sockets
from lastcall.server.parts import budgets_of
from lastcall.server.process_end import ProcessEnd
from lastcall.server.server import Server
from lastcall.server.signals import SignalHandler
from lastcall.server.teardown import close_loop
from lastcall.systemd.activation import take_sockets
from lastcall.systemd.notify import Notifier, take_place

if TYPE_CHECKING:
    from lastcall.base.options import ServerOptions
    from lastcall.base.progress import Progress
    from lastcall.config import Config
    from lastcall.server.guard import Guard
    from lastcall.server.parent import Parent

logger = logging.getLogger("lastcall.error")

WATCHDOG_MARGIN = 0.5
"""Seconds that the watchdog waits beyond the longest time that a stop can take."""

STACKS_SIGNAL: int = getattr(signal, "SIGRTMAX", 0) and signal.SIGRTMAX - 3
"""The signal by which ``faulthandler`` is asked for the stacks, without the GIL; 0 where there are no such signals."""


def run_process(
    config: Config, *, tell: Callable[[LastcallError], int], final: bool, parent: Parent | None = None
) -> int:
    """Serve in this process until it is told to stop; return the exit code.

    Owns the event loop, the signal handlers and the teardown. ``tell`` is given the ConfigError or StartupError that
    kept the server from serving, and returns its exit code.

    ``final``: nothing but the end of the process follows. Then the signal handlers and the watchdog stay, so that the
    end, ``atexit`` functions included, is bounded and never that of a signal. Otherwise both are gone on return.

    ``parent``: this is a worker, whose parent binds, and gives the orders.

    Does not return, but ends the process, where threads or child processes would keep it from ending. Before anything
    is done, raises RuntimeError in a running event loop and while another call owns this process, and the errors of a
    directory, a file of variables or a log configuration.
    """
    refuse_running_loop()
    if watchdog.is_running():
        raise RuntimeError(
            "lastcall serves in this process already, and owns it until that call returns: "
            "for a server beside it use Server(Config(...)).run() in a thread"
        )
    own = OwnProcess(config.options) if parent is None else OwnProcess(_without_files(config.options), parent.role)
    place, activation = take_place(os.environ, os.getpid()), take_sockets(os.environ, os.getpid())
    prepare(config.options.app)
    configure_logging(config.options.log)
    if parent is None:
        config = on_systemds_sockets(config, activation)
    manager = ServiceManager(Notifier(place))
    guard = ProcessGuard(
        budgets_of(config.options.stop),
        own,
        manager,
        gc_freeze=config.options.gc_freeze,
        final=final,
        parent=0 if parent is None else parent.pid,
    )
    server = Server.under_parent(config, parent)
    handler = SignalHandler(server, None if parent is None else parent.decides)
    if final:
        # The first to be registered is the last to be called: the application's functions still have the handlers.
        atexit.register(handler.ignore)
    process_end = ProcessEnd(final=final, amend=server.amend, again=guard.again)
    code: int = ExitCode.STOPPED
    end = time.monotonic()
    try:
        try:
            own.take_pidfile()
            guard.start()
            handler.install()
            try:
                loop = make_loop(config.options.loop)
            except (LastcallError, KeyboardInterrupt):
                if not server.start_interrupted:
                    raise
                return server.interrupted().exit_code
            try:
                with listening(loop, _other_signals(server, parent)):
                    code = run_server(loop, server, handler, guard)
            finally:
                end = time.monotonic() + TEARDOWN
                guard.bound_the_end()
                # A KeyboardInterrupt is a task's own: ours come to the handler.
                if close_loop(loop, named=server.abandoned(), again=guard.again, raise_interrupts=False):
                    code = max(code, ExitCode.ABANDONED)
                    server.amend(code, "there are tasks that do not end")
        except LastcallError as error:
            manager.failed(error)
            code = max(code, tell(error))
        finally:
            own.end()  # before what may end the process
            process_end.leave_threads(end, code)
    finally:
        own.end()
        if not final:
            handler.restore()
            guard.stop()
        guard.thaw()
    return code


def _without_files(options: ServerOptions) -> ServerOptions:
    """The options of a worker: pidfile and report are its parent's."""
    return replace(options, process=replace(options.process, pidfile=None), stop=replace(options.stop, report=None))


def run_server(loop: asyncio.AbstractEventLoop, server: Server, handler: SignalHandler, guard: Guard) -> int:
    """Run the server to its end, whatever comes out of the loop before; the exit code.

    SystemExit and KeyboardInterrupt are an order to stop like any other, and a SystemExit's code counts if the server's
    own is not higher. Anything else is a failure: the stop begins with cancelling what runs.
    """
    loop.call_soon(server.generators.watch)
    code = 0

    def came_out(exc: BaseException) -> None:
        nonlocal code
        loop.call_soon(server.generators.watch)  # asyncio puts the hooks of before back at each end of a run
        if isinstance(exc, SystemExit | KeyboardInterrupt):
            if not (server.start_interrupted and isinstance(exc, KeyboardInterrupt)):
                logger.error("A task of the application raised %r out of the event loop: stopping.", exc)
            code = max(code, 0 if isinstance(exc, KeyboardInterrupt) else exit_code(exc))
            server.at_least(code)
            _hush(loop, exc)
            server.drain(type(exc).__name__)
        else:
            server.loop_failed(exc)

    serving = asyncio.Task(server.serve_under(handler, guard=guard), loop=loop)
    run_until_done(loop, serving, came_out)
    return max(code, serving.result().exit_code)


def _other_signals(server: Server, parent: Parent | None) -> dict[int, Callable[[], object]]:
    """What the signals are answered with that only a parent can obey. A worker hears of them by its own means."""
    if parent is not None or not hasattr(signal, "SIGHUP"):
        return {}
    hang_up = HangUp()

    def hung_up() -> None:
        if hang_up.is_the_end():
            server.hung_up()
        else:
            logger.warning("SIGHUP has no effect: a reload needs a parent process, which --supervise starts")

    def upgrade() -> None:
        logger.warning("SIGUSR2 has no effect: an upgrade needs a parent process, which --supervise starts")

    handlers: dict[int, Callable[[], object]] = {signal.SIGUSR2: upgrade}
    if not hang_up.ignored:
        handlers[signal.SIGHUP] = hung_up
    return handlers


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


class ProcessGuard:
    """What only a process of our own may do for its server: the watchdog, and the garbage collector's settings."""

    def __init__(
        self,
        budgets: Budgets,
        own: OwnProcess,
        manager: ServiceManager,
        *,
        gc_freeze: bool,
        final: bool,
        parent: int = 0,
    ) -> None:
        self._budgets = budgets
        self._own = own
        self._manager = manager
        self._gc_freeze = gc_freeze
        self._final = final
        self._parent = parent
        self._bounded = False
        self._frozen = False
        self._stacks = 0
        self._started = False
        self._again = False

    def start(self) -> None:
        """Start the watchdog, which needs no GIL: where the loop, or all of Python, hangs, it ends the process.

        Raises StartupError where the system gives no thread.
        """
        try:
            where = -1 if sys.__stderr__ is None else sys.__stderr__.fileno()
        except (OSError, ValueError):
            where = -1  # nobody to tell, but the end comes all the same
        # Not one that is somebody's already. One who takes it later finds no stacks in the watchdog's words.
        if where >= 0 and STACKS_SIGNAL and sigaction.is_default(STACKS_SIGNAL):
            self._stacks = STACKS_SIGNAL
            faulthandler.register(self._stacks, file=where, all_threads=True)
        try:
            watchdog.start(where, self._stacks, self._parent)
        except OSError as exc:
            raise StartupError(f"cannot start the watchdog's thread: {exc.strerror}") from exc
        self._started = True
        self._manager.starting()
        self._plan(Phase.STARTING)

    def stop(self) -> None:
        """The process goes on without a server, without a watchdog, and without a word to the service manager."""
        self._manager.close()
        if self._started:
            watchdog.stop()
        if self._stacks:
            faulthandler.unregister(self._stacks)

    def loaded(self) -> None:
        """A start-up that does not end is given up like a task that does not; an import cannot be."""
        self._plan(Phase.STARTING, ExitCode.ABANDONED)

    def turned(self) -> None:
        """The start-up does not block the loop."""
        watchdog.turned()

    def ready(self) -> None:
        """The server serves: what start-up made stays for good, and the collector need not look at it again."""
        self._plan(Phase.SERVING)
        if self._parent:
            watchdog.begin_anew()  # a SIGTERM that was too late to interrupt the start asks for a successor
        if self._gc_freeze:
            gc.collect()
            self._frozen = self._final or gc.get_freeze_count() == 0
            gc.freeze()
        self._manager.ready()

    def thaw(self) -> None:
        """Undo what ``ready()`` froze. Where the program had frozen objects before, that cannot be told apart.

        The command has frozen its own modules before, and all of it goes with the process that ends next.
        """
        if self._frozen:
            gc.unfreeze()

    def replan(self, budgets: Budgets) -> None:
        """The options of the stop have changed while it serves."""
        self._budgets = budgets
        self._plan(Phase.SERVING)

    def entered(self, phase: Phase) -> None:
        """Tell the watchdog what stop signals mean from now on, and the service manager where we are."""
        self._plan(phase)
        self._manager.stopping(f"Stopping: {phase.name.lower()}")

    def progress(self, progress: Progress | None) -> None:
        """Tell the service manager."""
        self._manager.progress(progress)

    def bound_sockets(self, files: list[tuple[str, tuple[int, int]]]) -> None:
        """Tell the watchdog what to remove, and become who the process is to be."""
        self.own_sockets(files)
        self._own.become(files)

    def own_sockets(self, files: list[tuple[str, tuple[int, int]]]) -> None:
        """Tell the watchdog what to remove."""
        watchdog.own_sockets([(os.fsencode(path), *inode) for path, inode in files])

    def bound(self, seconds: float) -> None:
        """Set the watchdog's deadline: in ``seconds``, and a little, the process ends, whatever hangs."""
        self._bounded = seconds < math.inf
        watchdog.bound(seconds + WATCHDOG_MARGIN)
        self._manager.bound(seconds)

    def again(self, seconds: float, since: float) -> float:
        """Once in a stop, ``seconds`` more for what has had its time, if the process stood still in that; else 0.0."""
        if self._again or watchdog.stood_still() <= since:
            return 0.0
        self._again = True
        logger.warning("The process stood still while it was stopping: %g s more for what it was doing.", seconds)
        return seconds

    def bound_the_end(self) -> None:
        """Set the deadline if no stop order has: after a failed start, say. The listeners are closed."""
        self.own_sockets([])
        self._plan(Phase.STOPPED)
        left = time_left(State(Phase.CLOSING), 0.0, self._budgets)
        if not self._bounded and left < math.inf:
            self.bound(left)

    def _plan(self, phase: Phase, code: int = ExitCode.ERROR) -> None:
        times = signal_times(phase, self._budgets)
        watchdog.plan(
            times.first + WATCHDOG_MARGIN,
            times.interrupt + WATCHDOG_MARGIN,
            times.second + WATCHDOG_MARGIN,
            restart=time_left(State(max(phase, Phase.CANCELLING)), 0.0, self._budgets) + WATCHDOG_MARGIN,
            code=code,
            starting=phase is Phase.STARTING,
        )

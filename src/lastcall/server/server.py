"""``Server``: one worker, from binding to the stop report, in whatever event loop runs ``serve()``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from lastcall.asgi.lifespan import Lifespan
from lastcall.asgi.loading import LoadedApp, load_app
from lastcall.base.errors import StartupError
from lastcall.base.record import replace
from lastcall.connection.deadlines import Deadlines
from lastcall.connection.http1 import HTTP1Connection, HTTPService
from lastcall.connection.scheduler import Scheduler
from lastcall.drain.ladder import TEARDOWN, Budgets, Phase, State
from lastcall.drain.policy import PolicyTable
from lastcall.drain.report import StopReport
from lastcall.net.listeners import Address, Listener, adopt, bind
from lastcall.notice.notice import register, unregister, want
from lastcall.notice.running import RunningTasks
from lastcall.notice.signal import DrainSignal
from lastcall.observe.logs import configure_logging, make_access_sink, make_progress
from lastcall.server.controller import Callbacks, ShutdownController, Work, shut_down
from lastcall.server.loops import make_loop, refuse_running_loop
from lastcall.server.signals import SignalHandler
from lastcall.server.teardown import close_loop

if TYPE_CHECKING:
    from lastcall.base.options import HTTPOptions
    from lastcall.base.sinks import AccessSink
    from lastcall.config import Config
    from lastcall.net.driver import Driver

logger = logging.getLogger("lastcall.error")

RESERVED_DESCRIPTORS = 64
"""Descriptors kept free of client connections: listeners, logs, the application's own files and pools."""


class Server:
    """One server for one :class:`~lastcall.Config`, as uvicorn's class of that name.

    - ``run()`` makes an event loop of its own and returns when the server has stopped; it works in any thread.
    - ``await serve()`` runs in the caller's loop, and touches only its own tasks, sockets and lifespan.

    Both return a :class:`StopReport` and raise :class:`~lastcall.base.errors.StartupError` if the server cannot become
    ready. Neither exits the process: that is ``lastcall.run()``'s and the command's part. Signal handlers are installed
    only in the main thread and only with ``install_signal_handlers=True``; the earlier ones are put back at the end.

    ``started`` is True while requests are served. ``drain()``, ``should_exit = True`` and ``force_exit = True`` stop
    the server from any thread; the last cancels at once what still runs. ``await wait_stopped()`` waits for the end, in
    any loop. ``addresses`` are the real ones, port 0 too.
    """

    def __init__(self, config: Config, *, install_signal_handlers: bool = True) -> None:
        self.config = config
        self.started = False
        self.importing = False
        self.addresses: list[Address] = []
        self._install_signal_handlers = install_signal_handlers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._controller: ShutdownController | None = None
        self._lifespan: Lifespan | None = None
        self._interrupt: Callable[[], None] | None = None  # of lifespan.startup, while it runs
        self._listeners: list[Listener] = []
        self._handler: SignalHandler | None = None
        # All of them: cause and level. Orders come from other threads and from signal handlers, which may interrupt
        # each other anywhere: nothing but an append is safe without a lock, and a lock could be held below a handler.
        self._orders: list[tuple[str, int]] = []
        self._bounded = False
        self._budgets: Budgets | None = None  # once it serves
        self._signal = DrainSignal()
        self._tasks = self._signal.tasks = RunningTasks()
        self._stopped: concurrent.futures.Future[StopReport] = concurrent.futures.Future()

    # -- orders, from any thread ----------------------------------------------------------------------------------

    def drain(self, cause: str = "api") -> None:
        """Start the stop ladder. A second call changes nothing."""
        self._give_order(cause, 1)

    @property
    def should_exit(self) -> bool:
        """True from the stop order on. Setting it to True is that order; False does nothing."""
        return bool(self._orders)

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._give_order("api", 1)

    @property
    def force_exit(self) -> bool:
        """True once what still runs was ordered to be cancelled. Setting it to True is that order."""
        return any(level >= 2 for _, level in self._orders)

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        if value:
            self._give_order("api", 2)

    async def wait_stopped(self) -> StopReport:
        """The report, once the server has stopped; in any event loop, also another thread's.

        Raises what ``run()`` or ``serve()`` raised where the server could not serve.
        """
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def tell(_future: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        self._stopped.add_done_callback(tell)
        await done.wait()
        return self._stopped.result()

    @property
    def starting(self) -> bool:
        """True until the server is ready: import and ``lifespan.startup``."""
        return self._controller is None

    def signal_received(self, name: str, level: int) -> None:
        """A signal counts; ``SignalHandler`` calls this in the handler.

        Only signals escalate: one that is the first while a drain is under way for another reason changes nothing but
        what SIGINT shortens.
        """
        self._give_order(name, level)

    def _give_order(self, cause: str, level: int) -> None:
        self._orders.append((cause, level))
        if self._budgets is not None and len(self._orders) == 1:
            # A loop that is blocked does not hear of it, maybe for ever. When it does, ``_bound`` begins anew.
            worst = self._budgets.worst_case(interactive=cause == "SIGINT")
            if worst < math.inf:
                self.stopping(worst)
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed: all is over
                loop.call_soon_threadsafe(self._obey, cause, level)

    def _obey(self, cause: str, level: int) -> None:
        """In the loop's thread: hand an order to whoever is in charge of the phase."""
        if self._controller is not None:
            if level >= 2:
                self._controller.force(cause)
            else:
                self._controller.order(cause, interactive=cause == "SIGINT")
        elif self._interrupt is not None:
            self._interrupt()

    def abandon_now(self) -> None:
        """The third signal, or the second while starting, in a process of our own: unlink our sockets, ``_exit(5)``."""
        for listener in self._listeners:
            if listener.inode is not None:
                listener.close()
        os._exit(5)

    def _abandoned(self) -> set[asyncio.Task[Any]]:
        """Tasks that did not end when they were cancelled: those that the log has named."""
        tasks = set() if self._controller is None else set(self._controller.abandoned)
        if self._lifespan is not None and self._lifespan.task is not None:
            tasks.add(self._lifespan.task)
        return {task for task in tasks if not task.done()}

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, sockets: Sequence[socket.socket] | None = None) -> StopReport:
        """``serve()`` in a new event loop, with a bounded teardown of that loop; see the class.

        Raises RuntimeError where an event loop is running already: there, ``await serve()``.
        """
        refuse_running_loop()
        loop = make_loop(self.config.options.loop)
        try:
            return loop.run_until_complete(self.serve(sockets))
        finally:
            close_loop(loop, named=self._abandoned())

    async def serve(self, sockets: Sequence[socket.socket] | None = None) -> StopReport:
        """Serve until a stop order, and through the whole ladder.

        ``sockets`` (bound stream sockets, listening or not) replace the configured addresses and are closed at the end.
        Cancelling this call is a jump to cancelling what runs; ``lifespan.shutdown`` runs, then CancelledError is
        raised. A server serves once. Sets up the ``lastcall`` loggers as ``log_config`` says (None: not at all) unless
        the program has given them handlers already.
        """
        configure_logging(self.config.options.log)
        return await self.serve_under(None, sockets)

    async def serve_under(
        self, handler: SignalHandler | None, sockets: Sequence[socket.socket] | None = None
    ) -> StopReport:
        """``serve()`` with signal handlers that are installed already (a process of our own), or None."""
        if self._loop is not None:
            raise RuntimeError("a Server serves once: make a new one")
        self._loop = asyncio.get_running_loop()
        own_handler = handler is None and self._install_signal_handlers
        self._handler = handler
        if own_handler:
            self._handler = SignalHandler(self, own_process=False)
            self._handler.install()
        app: LoadedApp | None = None
        register(self._signal)
        try:
            for warning in self.config.warnings:
                logger.warning("%s", warning)
            options = self.config.options
            self._listeners = bind(options.net.binds) if sockets is None else [adopt(sock) for sock in sockets]
            app = self._load()
            lifespan = None if app is None else await self._start_lifespan(app)
            if app is None or lifespan is None:
                return self._interrupted()
            return await self._serve(app, lifespan)
        except BaseException as exc:
            if not self._stopped.done():
                self._stopped.set_exception(exc)
            raise
        finally:
            self.started = False
            unregister(self._signal, last=handler is not None)
            for listener in self._listeners:
                listener.close()
            for sock in sockets or ():
                sock.close()
            if app is not None:
                app.close()
            if own_handler and self._handler is not None:
                self._handler.restore()

    def _load(self) -> LoadedApp | None:
        """Import the application; None if a signal interrupted that."""
        self.importing = True
        try:
            if self._orders:
                return None
            app = load_app(self.config.options.app)
            if knows_lastcall():
                want()
            return app
        except KeyboardInterrupt:
            if not self._orders:
                raise  # not from our handler
            return None
        finally:
            self.importing = False

    async def _start_lifespan(self, app: LoadedApp) -> Lifespan | None:
        """Run ``lifespan.startup``; None if an order interrupted it."""
        options = self.config.options
        self._lifespan = lifespan = Lifespan(
            app.app, options.app.lifespan, timeout_startup=options.app.timeout_lifespan_startup
        )
        self._interrupt = lifespan.interrupt
        ready = False
        try:
            if not self._orders:
                ready = await lifespan.startup()
        finally:
            if not ready:
                await lifespan.cancel(options.stop.cancel)
            self._interrupt = None
        return lifespan if ready else None

    def _interrupted(self) -> StopReport:
        cause = self._orders[0][0] if self._orders else "api"
        logger.info("Stopped (%s) before the application had started.", cause)
        report = StopReport(cause, 0, 0.0, "not started")
        self._reported(report)
        return report

    async def _serve(self, app: LoadedApp, lifespan: Lifespan) -> StopReport:
        with ExitStack() as stack:
            try:
                controller = self._open(app, lifespan, stack)
            except BaseException as exc:
                # The application is up, so it is shut down, although nobody was ever let in.
                stack.close()
                for listener in self._listeners:
                    listener.close()
                left = self._left(State(Phase.CLOSING))
                if left < math.inf:
                    self.stopping(left)
                await shut_down(lifespan, self.config.options.stop.lifespan_shutdown)
                if isinstance(exc, OSError):
                    raise StartupError(f"cannot serve: {exc.strerror or exc}") from exc
                raise
            return await controller.run()

    def _open(self, app: LoadedApp, lifespan: Lifespan, stack: ExitStack) -> ShutdownController:
        """Let requests in; what has to be closed at the end is put on ``stack``."""
        loop = asyncio.get_running_loop()
        options = self.config.options
        access = make_access_sink(options.log)
        stack.callback(access.flush)
        stop = options.stop
        scheduler = make_scheduler(loop, options.http, access)
        stack.callback(scheduler.close)
        service = HTTPService(
            app.app,
            self._tasks,
            scheduler,
            self._http_options(),
            state=lifespan.state,
            on_max_requests=lambda: self._give_order("max-requests", 1),
            signal=self._signal,
            policies=PolicyTable(stop.close, stop.finish) if stop.close or stop.finish else None,
            timeout_disconnect=stop.disconnect,
        )
        driver = make_driver(
            options.net.driver, scheduler, service, limit=connection_limit(options.net.limit_connections)
        )
        stack.callback(driver.close)
        budgets = Budgets(
            graceful=stop.graceful,
            cancel=stop.cancel,
            lifespan_shutdown=stop.lifespan_shutdown,
            interrupt=stop.interrupt,
            delay=stop.delay,
            farewell=stop.farewell,
        )
        controller = ShutdownController(
            Work(self._tasks, driver, service, lifespan, self._listeners, self._signal),
            budgets,
            Callbacks(
                on_order=self._stop_ordered,
                on_phase=self._phase_entered,
                on_change=self._order_changed,
                set_should_exit=self._set_should_exit,
                progress=make_progress(),
                on_report=self._reported,
            ),
            nonzero_on_cut=stop.nonzero_on_cut,
        )
        for listener in self._listeners:
            listener.listen(options.net.backlog)
        for listener in self._listeners:
            driver.listen(listener.sock, shared=listener.shared)
        self.addresses = [listener.address for listener in self._listeners]
        for listener in self._listeners:
            logger.info("lastcall running on %s (Press CTRL+C to quit)", listener.url)
        worst = budgets.worst_case()
        if worst < math.inf:
            logger.info("A stop takes at most %g s (after Ctrl-C: %g s)", worst, budgets.worst_case(interactive=True))
        else:
            logger.info("A stop has no limit: one of its timeouts is none")
        if self._handler is not None and (names := self._handler.replaced()):
            logger.warning(
                "The application has replaced the handler of %s: lastcall does not hear of it unless that handler "
                "calls the one before it.",
                " and ".join(names),
            )
        self._controller = controller
        self._budgets = budgets
        controller.ready()
        self.started = True
        self.ready()
        for order in tuple(self._orders):  # they came between start-up and here
            self._obey(*order)
        return controller

    def _http_options(self) -> HTTPOptions:
        options = self.config.options
        limit = max_requests(options.http.limit_max_requests, options.limit_max_requests_jitter)
        return replace(options.http, limit_max_requests=limit)

    # -- hooks ----------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Requests are served from now on. A process of our own has things to do then."""

    def stopping(self, worst_case: float) -> None:
        """From now on the stop takes at most ``worst_case`` seconds.

        Called at the order, by whoever gives it (a signal's handler, say), and again when the loop hears of it, or,
        where a part has no limit, when that part is over.
        """

    def _stop_ordered(self, state: State) -> None:
        controller = self._controller
        assert controller is not None, "only a serving server is ordered to stop by the ladder"
        if not self._orders:
            self._orders.append((state.cause, 1))
        worst = self._left(state)
        count = controller.running
        logger.info(
            "Stopping (%s): %d request%s in flight, %s.",
            state.cause,
            count,
            "" if count == 1 else "s",
            f"done within {round(worst, 1):g} s" if worst < math.inf else "no limit to the wait",
        )

    def _phase_entered(self, state: State) -> None:
        self._bound(state)

    def _bound(self, state: State) -> None:
        """Arm the watchdog as soon as all that is left has a limit."""
        left = self._left(state)
        if left < math.inf and not self._bounded:
            self._bounded = True
            self.stopping(left)

    def _order_changed(self, state: State) -> None:
        """A SIGINT has shortened what was left."""
        if state.phase < Phase.CANCELLING:
            logger.info("Stopping sooner (SIGINT): done within %g s.", round(self._left(state), 1))
        self._bound(state)

    def _set_should_exit(self) -> None:
        if self._handler is not None:
            self._handler.should_exit = True

    def _reported(self, report: StopReport) -> None:
        path = self.config.options.stop.report
        if path is not None:
            try:
                write_report(path, report)
            except (OSError, ValueError) as exc:
                reason = getattr(exc, "strerror", None) or exc
                logger.error("The report of the stop could not be written to %s: %s", path, reason)
        if not self._stopped.done():
            self._stopped.set_result(report)

    def _left(self, state: State) -> float:
        """The longest that the rest of a stop can take from now, in seconds."""
        stop = self.config.options.stop
        now = asyncio.get_running_loop().time()
        left = stop.lifespan_shutdown + TEARDOWN
        if state.phase <= Phase.CANCELLING:
            left += stop.cancel
        if state.phase <= Phase.ANNOUNCED:
            left += max(0.0, state.ordered + state.delay - now) + state.grace
        elif state.phase <= Phase.DISCONNECTING:
            left += max(0.0, state.cancel_at - now)
        return left


def knows_lastcall() -> bool:
    """Whether a module of the application, or of its libraries, has imported this package: it may ask for notices."""
    package = sys.modules.get("lastcall")
    return package is not None and any(
        getattr(module, "__dict__", {}).get("lastcall") is package for module in tuple(sys.modules.values())
    )


def write_report(path: str, report: StopReport) -> None:
    """Write the report as one line of JSON.

    A new file appears whole or not at all: whoever watches for it may read it at once. What is there already (a device,
    a file in a directory that is not ours) is written in place.
    """
    line = report.as_json() + "\n"
    if os.path.exists(path):
        # Not waiting: a named pipe that nobody reads must not hold the stop.
        with open(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK), "w", encoding="utf-8") as file:
            file.write(line)
        return
    fresh = f"{path}.{os.getpid()}.new"
    try:
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(line)
        os.replace(fresh, path)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh)
        raise


def make_scheduler(loop: asyncio.AbstractEventLoop, http: HTTPOptions, access: AccessSink) -> Scheduler:
    """The scheduler of one worker's connections."""
    deadlines = Deadlines(
        header=http.timeout_header,
        body=http.timeout_body,
        keep_alive=http.timeout_keep_alive,
        write=http.timeout_write,
    )
    return Scheduler(loop, deadlines, access, date_header=http.date_header, server_header=http.server_header)


def make_driver(name: str, scheduler: Scheduler, service: HTTPService, *, limit: int) -> Driver:
    """The driver of ``--driver``: ``auto`` is native where there is epoll and the loop can watch descriptors."""
    if name in ("auto", "native"):
        try:
            from lastcall.net.reactor import Reactor  # noqa: PLC0415 - does not exist without epoll

            return Reactor(scheduler, lambda stream: HTTP1Connection(service, stream), limit=limit)
        except (ImportError, NotImplementedError) as exc:
            if name == "native":
                raise StartupError(f"the native driver does not work here ({exc}): use --driver asyncio") from exc
    from lastcall.net.portable import PortableDriver  # noqa: PLC0415

    return PortableDriver(scheduler, lambda stream: HTTP1Connection(service, stream), limit=limit)


def max_requests(limit: int | None, jitter: int, randint: Callable[[int, int], int] | None = None) -> int | None:
    """``--limit-max-requests`` of this worker: up to ``jitter`` more, so that workers do not all stop together."""
    if limit is None or jitter == 0:
        return limit
    if randint is None:
        import random  # noqa: PLC0415 - for few servers, and slow to import

        randint = random.randint
    return limit + randint(0, jitter)


def connection_limit(limit: int | None) -> int:
    """``--limit-connections``, by default what the descriptor limit leaves."""
    if limit is not None:
        return limit
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else max(1, soft - RESERVED_DESCRIPTORS)

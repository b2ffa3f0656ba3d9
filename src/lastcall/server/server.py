"""``Server``: one worker, from binding to the stop report, in whatever event loop runs ``serve()``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from lastcall.asgi.lifespan import Lifespan
from lastcall.asgi.loading import LoadedApp, load_app, prepare
from lastcall.base.errors import StartupError
from lastcall.base.lineage import leave, leave_if_child
from lastcall.base.record import replace
from lastcall.connection.counts import ResponseCounts
from lastcall.connection.service import HTTPService
from lastcall.drain.ladder import Phase, State
from lastcall.drain.policy import PolicyTable
from lastcall.drain.report import StopReport
from lastcall.net.binding import adopt, bind, given
from lastcall.net.listener import Address, Listener
from lastcall.notice.notice import register, unregister
from lastcall.notice.running import RunningTasks
from lastcall.notice.signal import DrainSignal
from lastcall.observe.logs import StopView, configure_logging, make_access_sink
from lastcall.server.controller import ShutdownController
from lastcall.server.doors import Doors, OwnDoors
from lastcall.server.forks import leave_loop, let_go_in_children
from lastcall.server.generators import ClosingGenerators
from lastcall.server.guard import Guard
from lastcall.server.loops import make_loop, refuse_running_loop, run_until_done
from lastcall.server.parent import Parent, Serving
from lastcall.server.parts import (
    budgets_of,
    connection_limit,
    http1_protocol,
    http_options,
    make_driver,
    make_scheduler,
    websocket_upgrades,
)
from lastcall.server.report_file import ReportFile, report_file
from lastcall.server.signals import SignalHandler, waking
from lastcall.server.teardown import close_loop
from lastcall.server.work import Callbacks, Work

if TYPE_CHECKING:
    from lastcall.config import Config
    from lastcall.connection.scheduler import Scheduler
    from lastcall.net.driver import Driver

logger = logging.getLogger("lastcall.error")


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
        self._set_up(config, None, install_signal_handlers=install_signal_handlers)

    @classmethod
    def under_parent(cls, config: Config, parent: Parent | None) -> Server:
        """The server of one of lastcall's own workers; with None it is like any other."""
        server = cls.__new__(cls)
        server._set_up(config, parent, install_signal_handlers=True)
        return server

    def _set_up(self, config: Config, parent: Parent | None, *, install_signal_handlers: bool) -> None:
        self.config = config
        self.started = False
        self.importing = False
        self.start_interrupted = False
        self.addresses: list[Address] = []
        self._install_signal_handlers = install_signal_handlers
        self._parent = parent
        self._guard: Guard | None = None
        self._serving = False
        self._owns_loop = False
        self._thread = 0
        self._driver: Driver | None = None
        self._service: HTTPService | None = None
        self._lifespan: Lifespan | None = None
        self._listeners: list[Listener] = []
        self._handler: SignalHandler | None = None
        self._report_file: ReportFile | None = None
        self._amended: StopReport | None = None  # what has replaced the report
        self._signal = DrainSignal()
        self._tasks = self._signal.tasks = RunningTasks()
        self._view = StopView()
        self.generators = ClosingGenerators()
        self._stopped: concurrent.futures.Future[StopReport] = concurrent.futures.Future()
        stop = config.options.stop
        told = self._view if parent is None else None  # the terminal is the parent's
        self._controller = ShutdownController(
            self._signal,
            budgets_of(stop),
            Callbacks(
                bound=self._bound,
                again=self._again,
                on_phase=self._phase_entered,
                set_should_exit=self._set_should_exit,
                on_interrupt=told.interrupted if told else lambda: None,
                on_order=told.ordered if told else lambda: None,
                progress=self._view.progress if parent is None else parent.progress,
                on_draft=self._drafted if stop.report and parent is None else None,
                on_report=self._reported,
            ),
            nonzero_on_cut=stop.nonzero_on_cut,
            generators=self.generators,
            level=logging.INFO if parent is None else logging.DEBUG,
        )

    # -- orders, from any thread ----------------------------------------------------------------------------------

    def drain(self, cause: str = "api") -> None:
        """Start the stop ladder. A second call changes nothing."""
        self._controller.give_order(cause)

    @property
    def should_exit(self) -> bool:
        """True from the stop order on. Setting it to True is that order; False does nothing."""
        return self._controller.ordered

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._controller.give_order("api")

    @property
    def force_exit(self) -> bool:
        """True once what still runs was ordered to be cancelled. Setting it to True is that order."""
        return self._controller.forced

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        if value:
            self._controller.give_order("api", 2)

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
        return not self._controller.serving

    def interrupt_start(self) -> bool:
        """Whether the start-up blocks the loop; ``SignalHandler`` asks in the handler, and raises KeyboardInterrupt."""
        found = self.starting and self._controller.unheard
        self.start_interrupted |= found
        return found

    def interrupted(self) -> StopReport:
        """What ``serve()`` returns for a start that was interrupted, where it came to no call of that."""
        self._report_file = self._make_report_file()
        return self._controller.interrupted()

    def signal_received(self, name: str, level: int) -> None:
        """A signal counts; ``SignalHandler`` calls this in the handler, and interrupts an import."""
        self.start_interrupted |= self.importing
        self._controller.give_order(name, level)

    def hung_up(self) -> None:
        """The terminal is gone that the process was started on: stop, as by SIGINT."""
        self._controller.give_order("SIGHUP", interactive=True)

    def loop_failed(self, exc: BaseException) -> None:
        """An exception came out of the event loop, which is about to run on: cancel what runs, and stop."""
        self._controller.fail(exc)

    def at_least(self, code: int) -> None:
        """The process will end with ``code``, or with a higher one: the report has to say so."""
        self._controller.least_code = max(self._controller.least_code, code)

    def amend(self, code: int, why: str = "") -> None:
        """The process ends with ``code``: where the report says something else, replace it, and say ``why``."""
        if not self._stopped.done() or self._stopped.exception() is not None:
            return  # no report
        before = self._amended or self._stopped.result()
        if code != before.exit_code:
            self._amended = replace(before, exit_code=code)
            self._write(self._amended)
            if why:
                logger.error("Exit code %d and not %d: %s", code, before.exit_code, why)

    def abandoned(self) -> set[asyncio.Task[Any]]:
        """Tasks that did not end when they were cancelled: those that the log has named."""
        tasks = set(self._controller.abandoned)
        if self._lifespan is not None and self._lifespan.task is not None:
            tasks.add(self._lifespan.task)
        return {task for task in tasks if not task.done()}

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, sockets: Sequence[socket.socket] | None = None) -> StopReport:
        """``serve()`` in a new event loop, with a bounded teardown of that loop; see the class.

        Raises RuntimeError where an event loop is running already: there, ``await serve()``. SystemExit and
        KeyboardInterrupt that come out of the loop are an order to stop, and raised when that is done. Any other
        exception out of the loop cancels what runs; the report's ``exit_code`` is 1 then. An application that cancels
        all tasks of the loop cancels what runs, too.
        """
        refuse_running_loop()
        self._refuse_another_time()
        try:
            prepare(self.config.options.app)
            loop = make_loop(self.config.options.loop)
        except BaseException as exc:
            self._failed(exc)
            raise
        loop.call_soon(self.generators.watch)
        try:
            return self._run(loop, sockets)
        finally:
            close_loop(loop, named=self.abandoned())

    def _run(self, loop: asyncio.AbstractEventLoop, sockets: Sequence[socket.socket] | None) -> StopReport:
        exits: list[BaseException] = []

        def came_out(exc: BaseException) -> None:
            loop.call_soon(self.generators.watch)  # asyncio puts the hooks of before back at each end of a run
            if isinstance(exc, SystemExit | KeyboardInterrupt):
                exits.append(exc)
                self.drain(type(exc).__name__)
            else:
                self.loop_failed(exc)

        self._owns_loop = True
        serving = asyncio.Task(self.serve(sockets), loop=loop)
        run_until_done(loop, serving, came_out)
        if exits:
            raise exits[0]
        return serving.result()

    async def serve(self, sockets: Sequence[socket.socket] | None = None) -> StopReport:
        """Serve until a stop order, and through the whole ladder.

        ``sockets`` (bound stream sockets, listening or not) replace the configured addresses and are closed at the end.
        Raises ConfigError, before anything is touched, where one of them cannot be served.
        Cancelling this call is a jump to cancelling what runs; ``lifespan.shutdown`` runs, then CancelledError is
        raised. A server serves once. Sets up the ``lastcall`` loggers as ``log_config`` says (None: not at all) unless
        the program has given them handlers already.
        """
        self._refuse_another_time()
        usable: list[socket.socket] | None = None
        try:
            usable = None if sockets is None else given(sockets)
            prepare(self.config.options.app)
            configure_logging(self.config.options.log)
        except BaseException as exc:
            for sock in usable or ():
                sock.close()
            self._failed(exc)
            raise
        return await self.serve_under(None, usable)

    async def serve_under(
        self,
        handler: SignalHandler | None,
        sockets: Sequence[socket.socket] | None = None,
        *,
        guard: Guard | None = None,
    ) -> StopReport:
        """``serve()`` with the signal handlers and the guard of a process of our own, or None."""
        self._refuse_another_time()
        self._serving = True
        self._guard = guard
        self._owns_loop |= guard is not None
        self._report_file = self._make_report_file()
        self._controller.start()
        own_handler = handler is None and self._install_signal_handlers
        self._handler = handler
        if own_handler:
            self._handler = SignalHandler(self)
            self._handler.install()
        app: LoadedApp | None = None
        register(self._signal)
        loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        awake = ExitStack()
        awake.enter_context(let_go_in_children(lambda: self._let_go(loop, own_sockets=sockets is None)))
        try:
            if self._handler is not None:
                awake.enter_context(waking(loop))
            self._begin(sockets)
            app = self._load()
            lifespan = None if app is None else await self._start_lifespan(app)
            if app is None or lifespan is None:
                return self._controller.interrupted()
            return await self._serve(app, lifespan)
        except BaseException as exc:
            if app is None and self.start_interrupted and isinstance(exc, KeyboardInterrupt | StartupError):
                return self._controller.interrupted()  # a name that is not resolved, say
            if self._owns_loop and isinstance(exc, asyncio.CancelledError):
                # By the application, which has found us among all tasks of the loop: an order like any other.
                return self._report_of_cancelled()
            self._failed(exc)
            raise
        finally:
            self.started = False
            unregister(self._signal, last=handler is not None)
            self._close_sockets(sockets or ())
            if app is not None:
                app.close()
            if own_handler and self._handler is not None:
                self._handler.restore()
            awake.close()
            self._view.close()
            if self._parent is not None:
                self._parent.end()

    def _begin(self, sockets: Sequence[socket.socket] | None) -> None:
        """What comes before anything of the application: addresses, identity, the link to a parent."""
        parent, guard = self._parent, self._guard
        if parent is None:
            for warning in self.config.warnings:
                logger.warning("%s", warning)
            binds = self.config.options.net.binds
            self._listeners = bind(binds) if sockets is None else [adopt(sock) for sock in sockets]
        else:
            self._listeners = parent.listeners
        if guard is not None:
            self._view.also = guard.progress
            guard.bound_sockets([(one.path, one.inode) for one in self._listeners if one.inode is not None])
        if parent is not None:
            parent.begin(self._controller)

    def _make_report_file(self) -> ReportFile | None:
        return report_file(self.config.options.stop.report) if self._parent is None else None

    def _refuse_another_time(self) -> None:
        if self._serving or self._stopped.done():
            raise RuntimeError("a Server serves once: make a new one")

    def _failed(self, exc: BaseException) -> None:
        """Tell those who wait for the end."""
        if not self._stopped.done():
            self._stopped.set_exception(exc)

    def _report_of_cancelled(self) -> StopReport:
        if self._stopped.done():
            return self._stopped.result()
        self._controller.give_order("cancelled")
        return self._controller.interrupted()

    def _close_sockets(self, sockets: Sequence[socket.socket]) -> None:
        for listener in self._listeners:
            listener.close()
        for sock in sockets:
            sock.close()

    def _let_go(self, loop: asyncio.AbstractEventLoop, *, own_sockets: bool) -> None:
        """In a forked child: keep nothing of this server, and end the child where control would come back to it."""
        if self._service is not None:
            self._service.let_go(leave)
        if own_sockets:
            for listener in self._listeners:
                listener.let_go()
        if self._driver is not None:
            self._driver.let_go()
        if self._parent is not None:
            self._parent.let_go()
        leave_loop(loop, thread=self._thread, ours=self._owns_loop)

    def _load(self) -> LoadedApp | None:
        """Import the application; None if a signal interrupted that."""
        self.importing = True
        pid = os.getpid()
        try:
            app = None if self._controller.ordered else load_app(self.config.options.app)
            leave_if_child(pid)
            return app
        except BaseException as exc:
            leave_if_child(pid, exc)
            if self.start_interrupted or (isinstance(exc, KeyboardInterrupt) and self._controller.ordered):
                return None  # from our handler, or what the application made of that
            raise
        finally:
            self.importing = False
            if self._guard is not None:
                self._guard.loaded()

    async def _start_lifespan(self, app: LoadedApp) -> Lifespan | None:
        """Run ``lifespan.startup``; None if an order came meanwhile: nobody was let in, and nothing is left to stop.

        An application that has completed its start-up is always shut down, also one that has swallowed an interruption.
        """
        options = self.config.options
        self._lifespan = lifespan = Lifespan(
            app.app,
            options.app.lifespan,
            timeout_startup=options.app.timeout_lifespan_startup,
            died=options.app.lifespan_died,
            expected=self._parent is not None and self._parent.expects_lifespan,
        )
        self._controller.interrupt = lambda: self._interrupt(lifespan)
        ready = False
        try:
            if not self._controller.ordered:
                ready = await lifespan.startup() and not self._controller.ordered
        except StartupError:
            if not self.start_interrupted:  # else this is how the application took the exception
                raise
        finally:
            if not (ready or lifespan.ready):
                await lifespan.cancel(options.stop.cancel)
            self._controller.interrupt = None
            if not ready and lifespan.ready:
                await self._close_unserved(lifespan)
        return lifespan if ready else None

    def _interrupt(self, lifespan: Lifespan) -> None:
        if self._guard is not None:
            self._guard.turned()
        lifespan.interrupt()

    async def _close_unserved(self, lifespan: Lifespan) -> None:
        for listener in self._listeners:
            listener.close()
        await self._controller.close_unserved(lifespan)

    async def _serve(self, app: LoadedApp, lifespan: Lifespan) -> StopReport:
        with ExitStack() as stack:
            try:
                self._open(app, lifespan, stack)
            except BaseException as exc:
                # The application is up, so it is shut down, although nobody was ever let in.
                stack.close()
                await self._close_unserved(lifespan)
                if isinstance(exc, OSError):
                    raise StartupError(f"cannot serve: {exc.strerror or exc}") from exc
                raise
            return await self._controller.run()

    def _open(self, app: LoadedApp, lifespan: Lifespan, stack: ExitStack) -> None:
        """Let requests in; what has to be closed at the end is put on ``stack``."""
        options = self.config.options
        access = make_access_sink(options.log)
        stack.callback(access.flush)
        scheduler = make_scheduler(asyncio.get_running_loop(), options.http, access, options.websockets)
        stack.callback(scheduler.close)
        service = self._make_service(app, lifespan, scheduler)
        lifespan.on_death = lambda: self._lifespan_died(service)
        if lifespan.failed_while_serving:  # already
            lifespan.on_death()
        limit = connection_limit(options.net.limit_connections, len(self._listeners))
        driver = make_driver(options.net.driver, scheduler, service.drain, limit=limit, net=options.net)
        stack.callback(driver.close)
        self._driver, self._service = driver, service
        doors: Doors
        if self._parent is None:
            doors = OwnDoors(driver, self._listeners, lambda one: self._prepare(one, service), options.net.backlog)
        else:
            private = self._make_service(app, lifespan, scheduler, private=True)
            doors = self._parent.doors(Serving(driver, service, private, self._tasks, self._prepare))
        doors.open()
        self.addresses = [listener.address for listener in self._listeners]
        self._controller.serve(Work(driver, service, lifespan, doors), on_ready=self._ready)

    def _make_service(
        self, app: LoadedApp, lifespan: Lifespan, scheduler: Scheduler, *, private: bool = False
    ) -> HTTPService:
        """What clients meet; ``private``: what the parent meets, whose requests are neither counted nor logged."""
        options, stop = self.config.options, self.config.options.stop
        counted = self._parent is not None and not private
        return HTTPService(
            app.app,
            self._tasks,
            scheduler,
            http_options(options, private=private),
            state=lifespan.state,
            on_max_requests=lambda: self._stop_by_itself("max-requests"),
            signal=self._signal,
            policies=PolicyTable(stop.close, stop.finish) if stop.close or stop.finish else None,
            timeout_disconnect=stop.disconnect,
            asgi_spec=self.config.options.app.asgi_spec,
            counts=ResponseCounts() if counted else None,
            access_log=not private,
            websockets=websocket_upgrades(self.config.options.websockets),
        )

    def _prepare(self, listener: Listener, service: HTTPService) -> None:
        listener.root_path = self.config.options.http.root_path
        listener.protocol = http1_protocol(service, listener)

    def _stop_by_itself(self, cause: str) -> None:
        """A limit is reached: stop; where there is a parent, it gets a successor first."""
        if self._parent is None:
            self._controller.give_order(cause)
        else:
            self._parent.wants_to_retire(cause)

    def _lifespan_died(self, service: HTTPService) -> None:
        service.lifespan_died = True
        if self.config.options.app.lifespan_died == "stop":
            self._stop_by_itself("lifespan-died")

    def _say_where(self) -> None:
        if self._parent is None:
            self._say_addresses()
        if self._handler is not None and (names := self._handler.replaced()):
            logger.warning(
                "The application has replaced the handler of %s: lastcall does not hear of it unless that handler "
                "calls the one before it.",
                " and ".join(names),
            )

    def _say_addresses(self) -> None:
        for listener in self._listeners:
            logger.info("lastcall running on %s (Press CTRL+C to quit)", listener.url)
        budgets = self._controller.budgets
        worst = budgets.worst_case()
        if worst < math.inf:
            logger.info("A stop takes at most %g s (after Ctrl-C: %g s)", worst, budgets.worst_case(interactive=True))
        else:
            logger.info("A stop has no limit: one of its timeouts is none")

    # -- told by the controller -----------------------------------------------------------------------------------

    def _ready(self) -> None:
        self.started = True
        if self._guard is not None:
            self._guard.ready()
        self._say_where()  # now: who reads it may send a signal at once, and it is no longer one in the start
        if self._parent is not None:
            self._parent.ready(lifespan=self._lifespan is not None and self._lifespan.ready)

    def _bound(self, seconds: float) -> None:
        if self._guard is not None:
            self._guard.bound(seconds)

    def _again(self, seconds: float, since: float) -> float:
        return 0.0 if self._guard is None else self._guard.again(seconds, since)

    def _phase_entered(self, state: State) -> None:
        logger.debug("Stopping: %s", state.phase.name)
        if self._guard is not None:
            self._guard.entered(state.phase)
            if state.phase >= Phase.DRAINING:
                # They are removed now. A successor's may get the same inode, and must not be taken for ours.
                self._guard.own_sockets([])

    def _set_should_exit(self) -> None:
        if self._handler is not None:
            self._handler.should_exit = True

    def _drafted(self, report: StopReport) -> None:
        if self._report_file is not None and self._guard is not None:
            self._report_file.draft(report)

    def _reported(self, report: StopReport) -> None:
        self._write(report)
        if self._parent is not None:
            self._parent.stopped(report)
        if not self._stopped.done():
            self._stopped.set_result(report)

    def _write(self, report: StopReport) -> None:
        if self._report_file is not None:
            try:
                self._report_file.write(report)
            except OSError as exc:
                path = self.config.options.stop.report
                logger.error("The report of the stop could not be written to %s: %s", path, exc.strerror)

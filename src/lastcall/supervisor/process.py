"""The process of the parent: its event loop, its signals, what it says, and its exit code."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from lastcall.base.errors import LastcallError, StartupError
from lastcall.base.exit_code import ExitCode
from lastcall.base.record import Record, replace
from lastcall.drain.ladder import Budgets, Phase, after_grace
from lastcall.net.slots import Slots
from lastcall.observe.logs import StopView, configure_logging
from lastcall.server import watchdog
from lastcall.server.loops import refuse_running_loop
from lastcall.server.manager import ServiceManager
from lastcall.server.own_process import OwnProcess, on_systemds_sockets
from lastcall.server.parts import budgets_of
from lastcall.server.process import ProcessGuard
from lastcall.server.report_file import ReportFile, report_file
from lastcall.server.teardown import close_loop
from lastcall.supervisor.canary.smoke import Discovery, checks_for, smoke
from lastcall.supervisor.control_server import ControlServer
from lastcall.supervisor.events import UpgradeReady
from lastcall.supervisor.fleet import Fleet
from lastcall.supervisor.parent import Parent, Seams
from lastcall.supervisor.policy import KILL_MARGIN, FleetPolicy
from lastcall.supervisor.report import merged
from lastcall.supervisor.runtime_dir import name_of
from lastcall.supervisor.service import ParentService
from lastcall.supervisor.settings import pack
from lastcall.supervisor.signals import Signals
from lastcall.supervisor.upgrade import VARIABLE, Inheritance, Upgrade, inheritance
from lastcall.systemd.activation import take_sockets
from lastcall.systemd.notify import Notifier, Place, take_place

if TYPE_CHECKING:
    from lastcall.config import Config
    from lastcall.supervisor.workers import Worker

logger = logging.getLogger("lastcall.error")

OPEN_DOOR_PAUSE: Final = 0.5
OPEN_DOOR_TRIES: Final = 20


def run_supervisor(config: Config, *, tell: Callable[[LastcallError], int], final: bool) -> int:
    """Serve by workers under this process until it is told to stop; return the exit code.

    The arguments are those of ``server.process.run_process``. The application is not imported here, and the event loop
    is asyncio's, whatever ``--loop`` says: that is for workers.

    Before anything is done, raises RuntimeError in a running event loop and while another call owns this process, and
    ConfigError for a configuration that no other process could have.
    """
    refuse_running_loop()
    if watchdog.is_running():
        raise RuntimeError("lastcall serves in this process already, and owns it until that call returns")
    settings = pack(config)
    own = OwnProcess(config.options, "parent")
    place, activation = take_place(os.environ, os.getpid()), take_sockets(os.environ, os.getpid())
    configure_logging(config.options.log)
    config = on_systemds_sockets(config, activation)
    notifier = Notifier(place, held=VARIABLE in os.environ)
    manager = ServiceManager(notifier)
    budgets = with_margin(budgets_of(config.options.stop))
    guard = ProcessGuard(budgets, own, manager, gc_freeze=config.options.gc_freeze, final=final)
    view = StopView()
    view.also = guard.progress
    signals = Signals(view.interrupted, view.settle)
    if final:
        atexit.register(signals.handler.ignore)
    code: int = ExitCode.STOPPED
    try:
        guard.start()
        signals.install()
        loop = asyncio.new_event_loop()
        try:
            process = _Process(config, settings, _Given(signals, guard, view, own, place, notifier, tell))
            code = loop.run_until_complete(process.serve())
        finally:
            guard.bound_the_end()
            close_loop(loop)
    except LastcallError as error:
        manager.failed(error)
        code = max(code, tell(error))
    finally:
        view.close()
        own.end()
        if not final:
            signals.handler.restore()
            guard.stop()
        guard.thaw()
    return code


def with_margin(budgets: Budgets) -> Budgets:
    """Those of the parent: workers' kill timers give them a moment more than their longest stop, and it ends later."""
    return replace(budgets, lifespan_shutdown=budgets.lifespan_shutdown + KILL_MARGIN)


class _Given(Record):
    """What the process has before its loop: see ``run_supervisor``."""

    signals: Signals
    guard: ProcessGuard
    view: StopView
    own: OwnProcess
    place: Place
    notifier: Notifier
    tell: Callable[[LastcallError], int]


class _Process:
    """One run of the parent, from the addresses to the report."""

    def __init__(
        self,
        config: Config,
        settings: str,
        given: _Given,
    ) -> None:
        self._config = config
        self._settings = settings
        self._signals = given.signals
        self._guard = given.guard
        self._view = given.view
        self._own = given.own
        self._place = given.place
        self._notifier = given.notifier
        self._tell = given.tell
        self._report_file: ReportFile | None = report_file(config.options.stop.report)
        self._scaled = 0  # the number of slots that a predecessor has left
        self._service_options = config.options  # of the newest generation
        self._budgets = budgets_of(config.options.stop)
        self._serves = False
        self._cause = ""
        self._ordered = math.inf
        self._discovery = Discovery()
        self._reloading = False  # as the service manager has been told
        self._inheritance: Inheritance | None = inheritance(os.environ)

    async def serve(self) -> int:
        """Everything; the exit code. Raises StartupError where it cannot be done."""
        for warning in self._config.warnings:
            logger.warning("%s", warning)
        if self._inheritance is None:
            self._own.take_pidfile()
        with ExitStack() as stack:
            self._slots, inherited_control = await self._bind()
            self._upgrade = Upgrade(
                self._config.options.net.binds,
                self._slots.handover,
                self._successor_serves,
                lambda alone: self._parent.workers.share_doors(alone=alone),
                self._place.variables,
            )
            stack.callback(self._upgrade.close)
            stack.callback(self._close_doors)
            self._fleet = fleet = Fleet(self._policy(self._config), time.monotonic())
            fleet.guest = self._inheritance is not None
            self._parent = Parent(fleet, self._seams(), self._settings, self._slots.numbers)
            stack.callback(self._parent.close)
            self._parent.workers.share_doors(alone=self._inheritance is None)
            self._service = ParentService(
                self._parent, self._config, policy=self._policy, changed=self._changed, upgrader=self._upgrade
            )
            self._control = self._make_control(inherited_control)
            if self._inheritance is None:
                self._open_control()
            try:
                with self._signals.obeyed(self._service), self._watching():
                    self._parent.begin(fleet.start(time.monotonic()))
                    code = self._report(await self._parent.done)
                if self._parent.error is not None:
                    raise self._parent.error
                return code
            finally:
                if len(self._parent.workers):  # a mistake of ours has come up
                    worst = self._budgets.worst_case()
                    await self._parent.end_workers(worst if worst < math.inf else after_grace(self._budgets))
                await self._control.close()

    # -- the start ------------------------------------------------------------------------------------------------

    async def _bind(self) -> tuple[Slots, str]:
        """The listeners: made, or inherited from the parent before; and the path of its control socket."""
        net = self._config.options.net
        if self._inheritance is not None:
            self._inheritance.on_alone = self._alone
            self._config, state, fds, control = await self._inheritance.take(self._config)
            net = self._config.options.net
            slots = Slots.inherited(net.binds, net.backlog, state, fds)
            self._scaled = len(slots.numbers)
            return slots, control
        slots = Slots(net.binds, net.backlog)
        slots.bind(FleetPolicy.of(self._config.options, jitter=random.random).count)
        self._guard.own_sockets(slots.files)
        return slots, ""

    def _policy(self, config: Config) -> FleetPolicy:
        policy = FleetPolicy.of(
            config.options,
            jitter=random.random,
            shared=bool(self._slots.shared),
            only_shared=not self._slots.split,
        )
        # What was scaled stays so in an upgrade: a slot that is there must not be without a worker.
        same = config.options.workers.count == self._config.options.workers.count
        return replace(policy, count=self._scaled) if self._scaled and same else policy

    def _changed(self, config: Config) -> None:
        """Workers of before and of after may have to stop: the parent's times are the longer ones of both."""
        before, after = budgets_of(self._service_options.stop), budgets_of(config.options.stop)
        self._service_options = config.options
        self._budgets = Budgets(*(max(getattr(before, name), getattr(after, name)) for name in Budgets._fields))
        if self._serves and not self._parent.stopping:
            self._guard.replan(with_margin(self._budgets))

    def _seams(self) -> Seams:
        return Seams(
            doors=self._slots,
            smoke=self._smoke,
            notify=self._notify,
            on_first=self._say_where,
            on_accepting=self._accepting,
            on_stop=self._stopping,
            on_failure=self._say_failure,
            close_doors=self._close_doors,
            show=self._view.progress,
        )

    def _make_control(self, inherited: str) -> ControlServer:
        path = inherited or self._config.options.workers.control
        name = name_of(self._slots.addresses, os.getpid())
        return ControlServer(self._service, path, name=name, replace=bool(inherited))

    def _open_control(self) -> None:
        addresses = list(self._slots.urls)
        self._service.facts = {"app": str(self._config.app), "addresses": addresses, "pid": os.getpid()}
        self._control.start()
        self._upgrade.control = self._control.path

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Where ``--reload`` is given, watch the files."""
        options = self._config.options
        if not options.reload.wanted:
            yield
            return
        from lastcall.supervisor.watch import Watcher, described  # noqa: PLC0415 - for development only

        def changed(paths: list[str]) -> None:
            logger.info("Changed: %s", described(paths))
            self._service.files_changed()

        named = [one for one in (options.app.env_file, options.log.config) if isinstance(one, str | os.PathLike)]
        watcher = Watcher(options.reload, named, changed)
        watcher.start()
        logger.info("Watching for changes in %s", ", ".join(watcher.directories))
        try:
            yield
        finally:
            watcher.stop()

    async def _smoke(self, worker: Worker) -> str:
        options = self._service.config.options
        if options.reload.wanted and not options.canary.smoke:
            return ""  # a person sees what does not work, and wants to see it soon
        prefix, there = options.http.health_path, tuple[str, ...]()
        older = [one for one in self._parent.workers if one.accepts and one.generation < worker.generation]
        if older and not options.canary.smoke:
            old = max(older, key=lambda one: one.generation)
            there = await self._discovery.ask(old.generation, old.path)
        checks = checks_for(options.canary.smoke, f"{prefix}/ready" if prefix else "", there)
        failure = await smoke(worker.path, checks)
        if not failure:
            self._discovery.passed(worker.generation, checks)
        return failure

    def _notify(self, state: str, status: str) -> None:
        """READY after a reload. For the first time it is the guard's, and so is STOPPING."""
        if state == "READY":
            if self._reloading:
                self._notifier.ready(status or "Serving")
            self._reloading = False
        elif state == "RELOADING":
            self._reloading = True
            self._notifier.reloading(status or "Reloading")
        elif status:
            self._notifier.status(status)

    def _say_failure(self, text: str) -> None:
        """A worker could not start. As long as none has, ``systemctl status`` says why."""
        self._tell(StartupError(text))
        if not self._slots.listening:
            self._notifier.status(f"Error: {text.partition(chr(10))[0]}")

    def _accepting(self, count: int) -> None:
        """So many workers accept. In an upgrade, all that there are to be: this is the service from now on."""
        if count < len(self._slots.numbers) or self._inheritance is None or self._parent.stopping:
            return
        inheritance, self._inheritance = self._inheritance, None
        try:
            self._own.take_pidfile(instead_of=os.getppid())
            self._open_control()
        except StartupError as exc:
            self._parent.fail(exc)
            return
        self._claim()
        self._notifier.begin()
        self._notifier.main_pid(os.getpid())
        self._ready()
        inheritance.serving()

    def _ready(self) -> None:
        self._serves = True
        self._guard.ready()

    def _claim(self) -> None:
        """The listeners are ours from now on: to shut, to close and to remove."""
        self._slots.claim()
        self._fleet.guest = False
        self._guard.own_sockets(self._slots.files)
        self._parent.workers.share_doors(alone=True)

    def _say_where(self) -> None:
        if self._inheritance is None:
            self._ready()
        for url in self._slots.urls:
            logger.info("lastcall running on %s (Press CTRL+C to quit)", url)
        count = self._config.options.workers.count
        control = f"; lastcall ctl --socket {self._control.path}" if self._control.path else ""
        count = self._scaled or count
        logger.info("%d worker%s%s", count, "" if count == 1 else "s", control)
        budgets = budgets_of(self._config.options.stop)
        worst = budgets.worst_case()
        if worst < math.inf:
            logger.info("A stop takes at most %g s (after Ctrl-C: %g s)", worst, budgets.worst_case(interactive=True))
        else:
            logger.info("A stop has no limit: one of its timeouts is none")

    # -- the end --------------------------------------------------------------------------------------------------

    def _stopping(self, cause: str, interactive: bool) -> None:
        self._ordered = time.monotonic()
        self._cause = cause
        self._view.ordered()
        self._guard.entered(Phase.DRAINING)
        self._guard.own_sockets([])
        self._upgrade.give_up()
        self._draft()
        self._guard.bound(self._budgets.worst_case(interactive=interactive) + KILL_MARGIN)

    def _draft(self) -> None:
        if self._report_file is not None:
            self._report_file.draft(merged(self._cause, ExitCode.ERROR, 0.0, self._parent.ends))

    def _report(self, code: int) -> int:
        """Say, and write, how it ended."""
        self._view.close()
        seconds = time.monotonic() - self._ordered
        if seconds < 0:  # no stop was ordered: it could not start
            return code
        report = merged(self._cause, code, seconds, self._parent.ends)
        logger.log(logging.WARNING if report.cut else logging.INFO, "%s", report)
        if self._report_file is not None:
            try:
                self._report_file.write(report)
            except OSError as exc:
                path = self._config.options.stop.report
                logger.error("The report of the stop could not be written to %s: %s", path, exc.strerror)
        return code

    # -- an upgrade -----------------------------------------------------------------------------------------------

    def _alone(self, tries: int = OPEN_DOOR_TRIES) -> None:
        """The old parent was killed. A worker of it that has not heard of us yet, drains, and shuts the door."""
        if tries == OPEN_DOOR_TRIES and not self._parent.stopping:
            self._claim()
        self._slots.open_door()
        if tries > 1 and not self._parent.stopping:
            asyncio.get_running_loop().call_later(OPEN_DOOR_PAUSE, self._alone, tries - 1)

    def _successor_serves(self, pid: int) -> None:
        self._own.hand_pidfile_over()
        self._guard.own_sockets([])
        self._notifier.main_pid(pid)
        self._notifier.close()
        self._parent.tell(UpgradeReady())

    def _close_doors(self) -> None:
        """Close the listeners, or, where a successor has them, our copies: closing would shut them down for it too."""
        if self._upgrade.handed_over:
            self._slots.let_go()
        else:
            self._slots.close()

"""A worker class for gunicorn: ``gunicorn -k lastcall.gunicorn.Worker main:app``, in place of UvicornWorker.

gunicorn's parent binds, forks, watches and replaces; what serves in a worker is lastcall, whole: its parser, its
reactor, its drain. Three habits of that parent (seen with 27.0.1) make the difference to a process of our own:

- It repeats SIGTERM every second to a worker that it wants to be rid of. So that signal only ever means *retire*, once
  is as good as often, and it never escalates. SIGQUIT and SIGINT cancel what runs.
- It waits for ``graceful_timeout`` and then kills, without a word. So all parts of the stop together have to fit into
  that, less a second; requests get what the others leave of it.
- Exit codes 3 and 4 of any worker, also of one that was retired long ago, stop the whole service. So 3 is said only by
  a worker that never served, and a ``lifespan.shutdown`` that failed (4 elsewhere) is 1.

gunicorn is no dependency: whoever uses this has it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gunicorn.workers import base

from lastcall.base.errors import ConfigError, LastcallError
from lastcall.base.exit_code import ExitCode
from lastcall.base.options import BindSpec
from lastcall.config import Config
from lastcall.config.options import OPTIONS
from lastcall.config.resolve import from_environment
from lastcall.drain.ladder import TEARDOWN, Phase
from lastcall.server.loops import make_loop
from lastcall.server.process import run_server
from lastcall.server.process_end import ProcessEnd
from lastcall.server.server import Server
from lastcall.server.signals import SignalHandler
from lastcall.server.teardown import close_loop

if TYPE_CHECKING:
    from lastcall.base.progress import Progress

logger = logging.getLogger("lastcall.error")

RESERVE: Final = 1.0
"""Seconds of ``graceful_timeout`` that nothing of ours is planned for: gunicorn kills when it is over."""
LEAST: Final = 0.1
"""Seconds of ``lifespan.shutdown``, however little there is."""

OWNED: Final = {
    "bind": "bind", "host": "bind", "port": "bind", "uds": "bind", "fd": "bind", "backlog": "backlog",
    "workers": "workers", "supervise": "workers", "reload": "reload", "canary": "workers", "user": "user",
    "group": "group", "umask": "umask", "pidfile": "pidfile", "proc_title": "proc_name", "chdir": "chdir",
    "limit_max_requests": "max_requests", "limit_max_requests_jitter": "max_requests_jitter",
    "limit_worker_age": "max_requests", "limit_worker_rss": "max_requests", "app_dir": "pythonpath",
    "factory": "a call in the application's name", "env_file": "raw_env", "log_config": "logconfig",
    "log_level": "loglevel", "access_log": "accesslog", "control_socket": "workers", "daemon": "daemon",
}  # fmt: skip
"""Options of ours that are gunicorn's here: what it calls them."""

LATER: Final = "that comes with a later release of lastcall"
WITHOUT_EFFECT: Final = {
    "limit_request_field_size": "limit_header_bytes bounds the whole head (LASTCALL_LIMIT_HEADER_BYTES)",
    "forwarded_allow_ips": f"X-Forwarded-For and X-Forwarded-Proto are read from nobody, {LATER}",
    "secure_scheme_headers": f"they are read from nobody, {LATER}",
    "forwarder_headers": f"they are read from nobody, {LATER}",
    "proxy_protocol": LATER,
    "threads": "a worker is one event loop",
    "pre_request": "an ASGI middleware sees each request",
    "post_request": "an ASGI middleware sees each request",
    "access_log_format": "lastcall's access lines have their own form",
}
"""Settings of gunicorn that change nothing here, and why; said once where one is set."""


class Worker(base.Worker):  # type: ignore[misc] # gunicorn is not typed
    """One worker process of gunicorn, in which lastcall serves.

    Options of lastcall that gunicorn has not are taken from ``LASTCALL_*`` variables (``--env LASTCALL_DRAIN_CLOSE=…``)
    and, over those, from ``CONFIG_KWARGS`` of a subclass, as with UvicornWorker.
    """

    CONFIG_KWARGS: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by gunicorn's parent before it forks: refuse what would fail in each worker."""
        if cfg.is_ssl:
            log.critical("lastcall.gunicorn.Worker speaks no TLS yet, which comes with a later release.")
            raise SystemExit(ExitCode.USAGE)

    def init_process(self) -> None:
        """Called by gunicorn behind ``fork()``; does not return."""
        self._server: Server | None = None
        self._process_end = ProcessEnd(final=True, amend=self._amend, again=lambda _seconds, _since: 0.0)
        super().init_process()

    def init_signals(self) -> None:
        """Until the server is made, gunicorn's own handlers hold: an import ends at SIGQUIT. SIGABRT: see there."""
        # Off and on again: the copy that was inherited believes that its handler is still there.
        faulthandler.disable()
        super().init_signals()
        # Over that of Python: the stacks are written in C, however Python is blocked, and then comes handle_abort().
        with suppress(OSError, ValueError, AttributeError, RuntimeError):
            faulthandler.enable(file=sys.__stderr__ or 2, all_threads=True)

    def handle_abort(self, sig: int, frame: object) -> None:
        """SIGABRT: gunicorn has not heard of us for ``timeout``. The stacks are written; leave, whatever hangs."""
        self.alive = False
        with suppress(Exception):
            self.cfg.worker_abort(self)
        os._exit(ExitCode.ERROR)

    def run(self) -> None:
        """Serve until gunicorn has had enough. Ends in SystemExit where the exit code is not 0."""
        _log_as_gunicorn(self.log)
        code: int = ExitCode.ERROR
        ready = False
        end = time.monotonic() + TEARDOWN
        try:
            config, lines = configure(self.wsgi, self.cfg, self.max_requests, os.environ, self.CONFIG_KWARGS)
            for line in lines:
                logger.info("%s", line)
            config = config.listening_on(tuple(BindSpec("fd", fd=each.fileno()) for each in self.sockets))
            server = self._server = Server(config, install_signal_handlers=False)
            handler = RetireHandler(server, self._interrupted)
            guard = _Guard(self, gc_freeze=config.options.gc_freeze)
            loop = make_loop(config.options.loop)
            loop.add_reader(self.PIPE[0], self._woken)
            handler.install()
            if not self.alive:
                server.drain("SIGTERM")  # it came during the import
            try:
                code = run_server(loop, server, handler, guard)
            finally:
                ready = guard.served
                end = time.monotonic() + TEARDOWN
                loop.remove_reader(self.PIPE[0])
                if close_loop(loop, named=server.abandoned(), raise_interrupts=False):
                    code = max(code, ExitCode.ABANDONED)
                    server.amend(code, "there are tasks that do not end")
        except LastcallError as error:
            for each in error.errors if isinstance(error, ConfigError) else (error,):
                logger.critical("%s", each)
            code = ExitCode.STARTUP
        code = exit_code(code, served=ready)
        self._process_end.leave_threads(end, code)
        if code:
            sys.exit(code)

    def _woken(self) -> None:
        """The wake-up pipe of gunicorn: a signal has come, or its reloader has seen a change."""
        with suppress(OSError):
            os.read(self.PIPE[0], 4096)
        if not self.alive and self._server is not None:
            self._server.drain("reload")

    def _interrupted(self) -> None:
        self.alive = False
        with suppress(Exception):
            self.cfg.worker_int(self)

    def _amend(self, code: int) -> None:
        if self._server is not None:
            self._server.amend(code)


class RetireHandler(SignalHandler):
    """SIGTERM retires, however often it comes; SIGINT and SIGQUIT cancel what runs, and ``on_interrupt`` is told."""

    def __init__(self, server: Server, on_interrupt: Callable[[], None]) -> None:
        super().__init__(server)
        self._retiring = server
        self._on_interrupt = on_interrupt
        self._level = 0

    def _hear(self, signum: signal.Signals, when: float) -> bool:
        level = 1 if signum is signal.SIGTERM else 2
        if level > self._level:
            self._level = level
            self._ordered = min(self._ordered, when)
            self._retiring.signal_received(signum.name, level)
            if level == 2:
                self._on_interrupt()
        return False


class _Guard:
    """What a worker does for its server: the heartbeat that gunicorn waits for, from ready to the end of the loop."""

    def __init__(self, worker: Worker, *, gc_freeze: bool) -> None:
        self.served = False
        self._worker = worker
        self._gc_freeze = gc_freeze

    def ready(self) -> None:
        self.served = True
        if self._gc_freeze:
            gc.collect()
            gc.freeze()
        self._beat(asyncio.get_running_loop())

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        # gunicorn wants it once in ``timeout`` seconds, which is half of its own; 0: it does not look.
        self._worker.notify()
        loop.call_later(min(1.0, self._worker.timeout / 2) or 1.0, self._beat, loop)

    def again(self, seconds: float, since: float) -> float:
        return 0.0

    def bound(self, seconds: float) -> None: ...
    def entered(self, phase: Phase) -> None: ...
    def loaded(self) -> None: ...
    def turned(self) -> None: ...
    def progress(self, progress: Progress | None) -> None: ...
    def bound_sockets(self, files: list[tuple[str, tuple[int, int]]]) -> None: ...
    def own_sockets(self, files: list[tuple[str, tuple[int, int]]]) -> None: ...


def exit_code(code: int, *, served: bool) -> int:
    """What gunicorn is told: 3 and 4 would stop the whole service, which one worker's end must not once it served."""
    if code == ExitCode.LIFESPAN:
        return ExitCode.ERROR
    return ExitCode.ERROR if served and code == ExitCode.STARTUP else code


def configure(
    app: Any, cfg: Any, max_requests: int, environ: Mapping[str, str], kwargs: Mapping[str, Any]
) -> tuple[Config, list[str]]:
    """The configuration of a worker that serves ``app`` under gunicorn's ``cfg``, and lines about what differs.

    ``max_requests`` is this worker's, with its jitter. ``kwargs`` are keywords of ours and win over the ``LASTCALL_*``
    of ``environ``. Raises ConfigError.
    """
    asked = {name: given.raw for name, given in from_environment(environ).items()} | dict(kwargs)
    lines = [f"{name} has no effect under gunicorn, which has {OWNED[name]} for it" for name in asked if name in OWNED]
    lines += [f"gunicorn's {name} has no effect: {why}" for name, why in WITHOUT_EFFECT.items() if _is_set(cfg, name)]
    keywords: dict[str, Any] = {
        "workers": 1,
        "log_config": None,
        "access_log": bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json),
        "backlog": cfg.backlog,
        "timeout_keep_alive": cfg.keepalive,
        "limit_max_requests": max_requests if cfg.max_requests > 0 else None,
    }
    for theirs, ours in (
        ("limit_request_line", "limit_request_line"),
        ("limit_request_fields", "limit_headers"),
        ("worker_connections", "limit_connections"),
    ):
        if _is_set(cfg, theirs):
            if getattr(cfg, theirs) > 0:
                keywords[ours] = getattr(cfg, theirs)
            else:
                lines.append(
                    f"gunicorn's {theirs} 0, without a limit, has no effect: it is {OPTIONS[ours].default_text}"
                )
    keywords |= {name: value for name, value in asked.items() if name not in OWNED}
    keywords |= budgets(cfg.graceful_timeout, Config(app, **keywords), "timeout_graceful_shutdown" in asked, lines)
    config = Config(app, **keywords)
    return config, [*config.warnings, *lines]


def budgets(graceful_timeout: float, config: Config, grace_is_asked: bool, lines: list[str]) -> dict[str, float]:
    """The parts of a stop that fit into gunicorn's ``graceful_timeout``, as keywords; a line where one is cut for that.

    Requests get what the drain delay, cancelling, ``lifespan.shutdown`` and the end leave of it. Where these alone take
    more, they are cut in proportion, and requests get nothing.
    """
    stop = config.options.stop
    room = max(0.0, graceful_timeout - RESERVE - TEARDOWN)
    wanted = (stop.delay, stop.cancel, stop.lifespan_shutdown)
    if sum(wanted) <= room:
        grace = room - sum(wanted)
        if not grace_is_asked or stop.graceful > grace:
            lines.append(
                f"gunicorn kills {graceful_timeout:g} s after SIGTERM (graceful_timeout): requests have {grace:g} s of "
                f"that, cancelling {stop.cancel:g} s and lifespan.shutdown {stop.lifespan_shutdown:g} s"
            )
            return {"timeout_graceful_shutdown": grace}
        return {}
    parts = [min(part, room) for part in wanted]  # one may be without a limit
    share = room / sum(parts) if room else 0.0
    delay, cancel, shutdown = (round(part * share, 3) for part in parts)
    lines.append(
        f"gunicorn kills {graceful_timeout:g} s after SIGTERM (graceful_timeout), which leaves requests no time, "
        f"cancelling {cancel:g} s and lifespan.shutdown {shutdown:g} s: raise it"
    )
    return {
        "timeout_graceful_shutdown": 0.0,
        "timeout_cancel": cancel,
        "timeout_lifespan_shutdown": max(LEAST, shutdown),
        "drain_delay": delay,
    }


def _is_set(cfg: Any, name: str) -> bool:
    """Whether a setting of gunicorn is another than its default; those that this version has not are not."""
    setting = cfg.settings.get(name)
    return setting is not None and bool(setting.get() != type(setting)().get())


def _log_as_gunicorn(log: Any) -> None:
    """Messages and access lines go where gunicorn's go, as UvicornWorker does it."""
    for name, theirs in (("lastcall.error", log.error_log), ("lastcall.access", log.access_log)):
        ours = logging.getLogger(name)
        ours.handlers, ours.propagate = list(theirs.handlers), False
        ours.setLevel(theirs.level)

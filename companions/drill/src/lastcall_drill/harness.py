"""What a scenario works with: one server on the subject application, clients, signals, and what they saw.

All times that scenarios give or get are seconds, and unscaled: on a slow machine ``--scale`` makes each of them longer,
graces and tolerances alike.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypedDict, Unpack

from lastcall_drill import subject
from lastcall_drill.client import End, HTTPClient, Response, WebSocketClient
from lastcall_drill.connection import SocketOptions
from lastcall_drill.errors import DrillError
from lastcall_drill.process import POLL, ServerProcess, exit_words, free_port, pause
from lastcall_drill.scenario import Failed, NotOffered
from lastcall_drill.servers import Target
from lastcall_drill.timeline import Event, Timeline, read_events
from lastcall_drill.verdicts import Source

APP: Final = "drill_subject:app"
SUBJECT: Final = Path(subject.__file__).parent

GRACE: Final = 5
"""Seconds of grace where a scenario is not about their end."""

READY: Final = 20.0
"""Seconds that a server may take to answer its first request."""

SLACK: Final = 1.5
"""Seconds that an exit may come later than it should: processes take their time on a busy machine."""

_QUIET: Final = ("LASTCALL_", "UVICORN_", "HYPERCORN_", "GRANIAN_", "GUNICORN_", "H2CORN_", "WEB_CONCURRENCY")


class Start(TypedDict, total=False):
    """How to start a server.

    ``grace`` is in seconds. ``startup`` and ``shutdown`` are how the lifespan misbehaves, see the subject application;
    ``path`` is that of a unix socket; ``ready=False`` does not wait for a first answer. ``editable``: the application
    is a copy, whose code :meth:`Harness.edit` changes. The others are options of ``servers.toml``.
    """

    grace: int
    workers: int
    keep_alive: int
    max_requests: int
    lifespan_timeout: int
    reload: bool
    path: Path
    startup: str
    shutdown: str
    ready: bool
    editable: bool


class Harness:
    """One run of one scenario, with a ``directory`` of its own. Use it as a context manager: it kills the server."""

    def __init__(self, target: Target, directory: Path, *, scale: float = 1.0, deadline: float = 60.0) -> None:
        self.target = target
        self.directory = directory
        self.scale = scale
        self.timeline = Timeline()
        self.port = free_port()
        self.grace = 0.0  # as it was given to the server
        self._deadline = time.monotonic() + deadline * scale
        self._server: ServerProcess | None = None
        self._clients: list[HTTPClient | WebSocketClient] = []
        self._events = directory / "events"
        self._path: Path | None = None

    # the server

    @property
    def server(self) -> ServerProcess:
        """The running server."""
        if self._server is None:
            raise DrillError("the scenario has not started its server")
        return self._server

    @property
    def started(self) -> bool:
        """Whether there is, or was, a server."""
        return self._server is not None

    def has(self, feature: str) -> bool:
        """Whether the server has a feature, or an option of that name."""
        return feature in self.target.features

    def serve(self, **how: Unpack[Start]) -> None:
        """Start the server, and wait until it has answered a request. Raises DrillError if it does not.

        May be called again: the server before is killed then, and the next signal is the zero of all moments.
        """
        if self._server is not None:
            self._leave()
            self.timeline.rearm()
            self.port = free_port()
        self.grace = float(how.get("grace", GRACE))
        given: dict[str, object] = {"grace": self._whole(self.grace), "directory": self.directory}
        asked: dict[str, Any] = dict(how)
        given |= {name: self._whole(asked[name]) for name in ("keep_alive", "lifespan_timeout") if name in asked}
        given |= {name: asked[name] for name in ("workers", "max_requests") if name in asked}
        if how.get("reload", False):
            given["reload"] = True
        if _copied(how):
            shutil.copytree(SUBJECT / "drill_subject", self.directory / "drill_subject")
        self._path = how.get("path")
        argv = self.target.command(app=APP, port=self.port, path=self._path, given=given)
        self._server = ServerProcess(
            argv, env=self._environment(how), cwd=self.directory, timeline=self.timeline, deadline=self._left()
        )
        if how.get("ready", True):
            self.server.wait_for_port(self.port, self.long(READY), path=self._path)
            self.wait_ready()

    def wait_ready(self, within: float = READY) -> None:
        """Wait until a request is answered, on a connection that is closed after it. Raises DrillError if none is."""
        until = time.monotonic() + self.long(within)
        while time.monotonic() < until and self.server.running:
            with suppress(OSError):
                if self.ask("/ok", name="warm-up").status == 200:
                    self.timeline.add(Source.DRILL, "ready")
                    return
            pause(POLL)
        raise DrillError(f"the server answered no request within {within:g} s:\n{self.server.tail()}")

    def edit(self, code: str) -> None:
        """Append ``code`` to the application's module of routes: atomically, as a deploy or an editor writes it."""
        file = self.directory / "drill_subject" / "routes.py"
        changed = file.with_suffix(".new")
        changed.write_text(f"{file.read_text('utf-8')}\n\n{code}", encoding="utf-8")
        changed.replace(file)

    def _environment(self, how: Start) -> dict[str, str]:
        names = list(os.environ)  # at once: other threads may change it, and items() would not have that
        inherited = {name: os.environ.get(name, "") for name in names if not name.startswith(_QUIET)}
        # What the user's own Python is to find must not get into environments of ours.
        own = bool(self.target.asked.command) or self.target.python == Path(sys.executable)
        search = [str(self.directory if _copied(how) else SUBJECT), os.environ.get("PYTHONPATH", "") * own]
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join(filter(None, search)),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_RUNTIME_DIR": str(self.directory),
            "DRILL_EVENTS": str(self._events),
            "DRILL_STARTUP": self._scaled(how.get("startup", "")),
            "DRILL_SHUTDOWN": self._scaled(how.get("shutdown", "")),
        }

    # times

    def long(self, seconds: float) -> float:
        """Real seconds for unscaled ones."""
        return seconds * self.scale

    def since_signal(self, at: float | None = None) -> float:
        """Unscaled seconds since the first signal, now or at a time of ``time.monotonic()``."""
        return ((time.monotonic() if at is None else at) - self.timeline.zero) / self.scale

    def sleep(self, seconds: float) -> None:
        """Wait. Scenarios wait for conditions where there are any."""
        pause(min(self.long(seconds), self._left()))

    def until(self, seconds: float) -> None:
        """Wait until ``seconds`` after the first signal."""
        self.sleep(seconds - self.since_signal())

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _whole(self, seconds: float) -> float:
        """Real seconds as the server's options take them: many take whole numbers only."""
        real = self.long(seconds)
        return real if self.has("fractions") else max(1, round(real))

    def _scaled(self, how: str) -> str:
        word, colon, seconds = how.partition(":")
        return f"{word}:{self.long(float(seconds)):g}" if colon else word

    # clients

    def connect(self, name: str = "client", **options: Unpack[SocketOptions]) -> HTTPClient:
        """A connection. Raises OSError if it is refused."""
        client = HTTPClient(self.port, self.timeline, name, **self._options(options))
        self._clients.append(client)
        return client

    def ask(self, target: str, name: str = "request", within: float = 5.0) -> Response:
        """A request on a connection of its own, which says ``Connection: close``. Raises OSError if refused."""
        with HTTPClient(self.port, self.timeline, name, **self._options({})) as client:
            return client.get(self._scaled_target(target), self.long(within), headers=["Connection: close"])

    def open(self, target: str, name: str = "client") -> tuple[HTTPClient, Response]:
        """A request whose response is not waited for, on a connection of its own."""
        client = self.connect(name)
        return client, client.request(self._scaled_target(target))

    def stream(self, target: str, name: str = "client") -> tuple[HTTPClient, Response]:
        """A request whose response has begun: some of its body has come. Raises DrillError if it does not."""
        client, response = self.open(target, name)
        if not client.wait_body(response, 1, self.long(5.0)):
            raise DrillError(f"{target} did not begin to answer: {response}")
        return client, response

    def websocket(self, target: str = "/ws", name: str = "client", *, mute: bool = False) -> WebSocketClient:
        """An open WebSocket. Raises NotOffered if the server does not accept any."""
        target = self._scaled_target(target)
        client = WebSocketClient(self.port, self.timeline, name, target, mute=mute, **self._options({}))
        self._clients.append(client)
        if not client.wait_open(self.long(5.0)):
            raise NotOffered(f"the WebSocket handshake was answered with {client.status or 'nothing'}")
        return client

    def _options(self, options: SocketOptions) -> SocketOptions:
        return {"path": str(self._path), **options} if self._path is not None else options

    def _scaled_target(self, target: str) -> str:
        """Times in a query string are seconds, too."""
        path, _, query = target.partition("?")
        pairs = [pair.split("=") for pair in query.split("&") if pair]
        scaled = [(k, f"{self.long(float(v)):g}" if k in ("s", "every", "cleanup") else v) for k, v in pairs]
        return path + ("?" + "&".join(f"{k}={v}" for k, v in scaled) if scaled else "")

    # signals and what follows

    def signal(self, number: int = signal.SIGTERM, *, group: bool = False) -> float:
        """Send a signal to the server, or to its whole process group. Returns when (``time.monotonic()``).

        Raises DrillError if the server has ended before the first one: there is no stop to be judged.
        """
        if not self.timeline.signalled and (code := self.server.exit_code) is not None:
            raise DrillError(f"the server ended before the signal, {exit_words(code)}:\n{self.server.tail()}")
        return self.server.signal(number, group=group)

    def exited(self, within: float) -> float | None:
        """Wait for the exit until ``within`` seconds after the first signal. Returns when it came, None if not."""
        self.server.wait(min(self.long(within - self.since_signal()), self._left()))
        if self.server.killed:
            raise DrillError("the scenario took longer than its hard deadline")
        return None if self.server.exited is None else self.since_signal(self.server.exited)

    def must_exit(self, within: float, of: str = "") -> float:
        """Wait for the exit until ``within`` seconds after the first signal. Returns when it came.

        Raises Failed if it still runs; ``of`` says what it was given, as in "its grace of 2 s".
        """
        seconds = self.exited(within)
        if seconds is None:
            raise Failed(f"still running {within:.1f} s after the signal{f', {of}' if of else ''}")
        return seconds

    def must_exit_after_grace(self, slack: float = SLACK) -> float:
        """Wait for the exit until the grace, and a tolerance, are over. Returns when it came; raises Failed."""
        seconds = self.exited(self.grace + slack)
        if seconds is None:
            raise Failed(f"still running {slack:.1f} s after its grace of {self.grace:g} s{self.no_grace}")
        return seconds

    @property
    def no_grace(self) -> str:
        """A remark where the server could not be told how long the grace is."""
        return self.target.no_grace

    @property
    def exit_words(self) -> str:
        """How the process ended."""
        code = self.server.exit_code
        return "no exit" if code is None else exit_words(code)

    # what the application saw

    def events(self, what: str = "", who: str = "", detail: str = "") -> list[Event]:
        """The application's events so far. Those arguments that are given have to be the same; ``detail`` in part."""
        return [
            one
            for one in read_events(self._events)
            if what in ("", one.what) and who in ("", one.who) and detail in one.detail
        ]

    def wait_event(self, what: str, who: str = "", detail: str = "", within: float = 5.0) -> Event | None:
        """Wait for the first such event; None if the time is over."""
        found = self.wait_for(lambda: self.events(what, who, detail), within)
        return found[0] if found else None

    def must_see(self, what: str, who: str = "", detail: str = "", within: float = 5.0) -> Event:
        """Wait for an event without which there is nothing to judge. Raises DrillError."""
        event = self.wait_event(what, who, detail, within)
        if event is None:
            raise DrillError(f"the application did not come to {' '.join(filter(None, (what, who, detail)))!r}")
        return event

    def workers_started(self) -> set[int]:
        """Process ids of the workers in which the application's lifespan.startup has ended, so far."""
        return {int(event.who.rpartition("-")[2]) for event in self.events("ready")}

    def must_start_workers(self, count: int, within: float = READY) -> None:
        """Wait until ``count`` workers have started: the first answer is of one of them. Raises DrillError."""
        if not self.wait_for(lambda: len(self.workers_started()) >= count, within):
            started = len(self.workers_started())
            raise DrillError(f"{started} of {count} workers have started within {within:g} s:\n{self.server.tail()}")

    def wait_for(self, look: Callable[[], Any], within: float) -> Any:
        """Look until it is true, or the time is over. Returns what was seen last."""
        until = time.monotonic() + min(self.long(within), self._left())
        while not (found := look()) and time.monotonic() < until:
            pause(POLL)
        return found

    # the end

    def close(self) -> None:
        """Kill the server and what it has left, close all clients, and join the application's events."""
        self._leave()

    def _leave(self) -> None:
        if self._server is not None:
            self._server.kill()
        for client in self._clients:
            client.close()
        self._clients.clear()
        self.timeline.join(self._events)
        self._events.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _copied(how: Start) -> bool:
    return how.get("reload", False) or how.get("editable", False)


def resets(clients: Iterable[HTTPClient]) -> list[str]:
    """The names of those whose connection was reset."""
    return [client.name for client in clients if client.end is End.RST]

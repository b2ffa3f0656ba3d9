"""One run of a card's reproduction: its steps are carried out, and then its observations are made.

The names of ``ACTIONS`` are those of ``STEPS``, and the names of ``OBSERVERS`` those of ``OBSERVATIONS``, in
:mod:`lastcall_drill.cards.format`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from lastcall_drill.cards.format import Observation, Step
from lastcall_drill.cards.linear import Pattern
from lastcall_drill.client import End, HTTPClient, Response, WebSocketClient
from lastcall_drill.errors import DrillError
from lastcall_drill.process import ServerProcess
from lastcall_drill.record import Record
from lastcall_drill.timeline import Timeline

POLL: Final = 0.01


class RunSettings(Record):
    """What a run needs: the command, its environment, its directory and port, its hard deadline (seconds)."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    port: int
    deadline: float


class Observed(Record):
    """Whether an observation holds, and what was there instead or as well, in plain words."""

    holds: bool
    what: str


class CardRun:
    """A server, its clients, and what has happened to them. A context manager that leaves no process behind."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.timeline = Timeline()
        self.signals: list[float] = []
        self.clients: dict[str, HTTPClient | WebSocketClient] = {}
        self.process: ServerProcess | None = None

    def do(self, step: Step) -> None:
        """Carry out one step. Raises DrillError if it cannot be."""
        try:
            ACTIONS[step.do](self, step.fields)
        except OSError as error:
            who = step.fields.get("client", "the server")
            raise DrillError(f"step {step.do!r} with {who}: {error.strerror or error}") from None

    def observe(self, observation: Observation) -> Observed:
        """Check whether an observation holds, now."""
        return OBSERVERS[observation.see](self, observation.fields)

    def __enter__(self) -> CardRun:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for client in self.clients.values():
                client.close()
        finally:
            if self.process is not None:
                self.process.kill()

    @property
    def server(self) -> ServerProcess:
        """The server's first process. Raises DrillError before the step ``start``."""
        if self.process is None:
            raise DrillError("the server was not started")
        return self.process

    @property
    def exit_seconds(self) -> float | None:
        """Seconds from the last signal (the start, if there was none) to the exit; None while it runs."""
        if self.process is None or self.process.exited is None:
            return None
        return self.process.exited - (self.signals[-1] if self.signals else self.process.started)

    def http(self, name: str) -> HTTPClient:
        """An HTTP client by name."""
        client = self.clients.get(name)
        if not isinstance(client, HTTPClient):
            raise DrillError(f"{name} is no HTTP client that was opened")
        return client

    def websocket(self, name: str) -> WebSocketClient:
        """A WebSocket client by name."""
        client = self.clients.get(name)
        if not isinstance(client, WebSocketClient):
            raise DrillError(f"{name} is no WebSocket that was opened")
        return client

    def connected(self, name: str) -> HTTPClient:
        """The HTTP client of this name; a new one if there is none."""
        if name not in self.clients:
            self.clients[name] = HTTPClient(self.settings.port, self.timeline, name)
        return self.http(name)

    def response(self, name: str) -> Response:
        """The last response of a client."""
        responses = self.http(name).responses
        if not responses:
            raise DrillError(f"{name} has sent no request")
        return responses[-1]

    def read(self, name: str) -> list[str]:
        """The lines that a client has read: of all bodies, or the messages."""
        client = self.clients.get(name)
        if isinstance(client, WebSocketClient):
            messages = [one for _, one in client.messages]
            return [one if isinstance(one, str) else one.decode("utf-8", "replace") for one in messages]
        bodies = [one.body for one in self.http(name).responses]
        return [line for body in bodies for line in body.decode("utf-8", "replace").splitlines()]


# steps


def _start(run: CardRun, fields: Mapping[str, Any]) -> None:
    settings = run.settings
    run.process = ServerProcess(
        settings.argv, env=settings.env, cwd=settings.cwd, timeline=run.timeline, deadline=settings.deadline
    )
    run.process.wait_for_port(settings.port, fields["within"])


def _wait_output(run: CardRun, fields: Mapping[str, Any]) -> None:
    pattern: Pattern = fields["pattern"]
    if not _wait(lambda: _matches(pattern, _output(run)), fields["within"]):
        raise DrillError(
            f"the server wrote no line with {pattern.text!r} within {fields['within']:g} s:\n{run.server.tail()}"
        )


def _open(run: CardRun, fields: Mapping[str, Any]) -> None:
    run.connected(fields["client"])


def _request(run: CardRun, fields: Mapping[str, Any]) -> None:
    body = fields["body"].encode() or None
    run.connected(fields["client"]).request(fields["path"], method=fields["method"], body=body)


def _send(run: CardRun, fields: Mapping[str, Any]) -> None:
    client = run.connected(fields["client"])
    if fields["response"]:
        client.expect()
    client.send(fields["text"].encode())


def _websocket(run: CardRun, fields: Mapping[str, Any]) -> None:
    name = fields["client"]
    client = WebSocketClient(run.settings.port, run.timeline, name, fields["path"])
    run.clients[name] = client
    if not client.wait_open(fields["within"]):
        raise DrillError(f"the WebSocket {name} was not accepted:\n{run.server.tail()}")


def _message(run: CardRun, fields: Mapping[str, Any]) -> None:
    run.websocket(fields["client"]).send_text(fields["text"])


def _read_until(run: CardRun, fields: Mapping[str, Any]) -> None:
    name = fields["client"]
    pattern: Pattern = fields["pattern"]
    if not _wait(lambda: _matches(pattern, run.read(name)), fields["within"]):
        raise DrillError(
            f"{name} read no line with {pattern.text!r} within {fields['within']:g} s:\n{run.server.tail()}"
        )


def _wait_response(run: CardRun, fields: Mapping[str, Any]) -> None:
    run.http(fields["client"]).wait(run.response(fields["client"]), fields["within"])


def _wait_close(run: CardRun, fields: Mapping[str, Any]) -> None:
    run.clients[fields["client"]].wait_end(fields["within"])


def _signal(run: CardRun, fields: Mapping[str, Any]) -> None:
    number = signal.Signals[fields["signal"]]
    run.signals.append(run.server.signal(number, group=fields["to"] == "group"))


def _sleep(_run: CardRun, fields: Mapping[str, Any]) -> None:
    time.sleep(fields["seconds"])


def _wait_exit(run: CardRun, fields: Mapping[str, Any]) -> None:
    run.server.wait(fields["within"])


def _close(run: CardRun, fields: Mapping[str, Any]) -> None:
    run.clients[fields["client"]].close()


ACTIONS: Final[Mapping[str, Callable[[CardRun, Mapping[str, Any]], None]]] = {
    "start": _start,
    "wait-output": _wait_output,
    "open": _open,
    "request": _request,
    "send": _send,
    "websocket": _websocket,
    "message": _message,
    "read-until": _read_until,
    "wait-response": _wait_response,
    "wait-close": _wait_close,
    "signal": _signal,
    "sleep": _sleep,
    "wait-exit": _wait_exit,
    "close": _close,
}


# observations


def _exit_within(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    seconds = run.exit_seconds
    return Observed(seconds is not None and seconds <= fields["seconds"], _exit_words(run))


def _exit_not_within(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    seconds = run.exit_seconds
    if seconds is None:  # no claim about a time that was not waited for
        waited = time.monotonic() - (run.signals[-1] if run.signals else run.server.started)
        return Observed(waited >= fields["seconds"], _exit_words(run))
    return Observed(seconds > fields["seconds"], _exit_words(run))


def _exit_code(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    return Observed(run.server.exit_code == fields["code"], _exit_words(run))


def _exit_signal(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    return Observed(run.server.exit_code == -signal.Signals[fields["signal"]], _exit_words(run))


def _output_matches(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    return _first(fields["pattern"], _output(run), "the output", True)


def _output_lacks(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    return _first(fields["pattern"], _output(run), "the output", False)


def _output_order(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    lines = _output(run)
    line_numbers = []
    for pattern in fields["patterns"]:
        line_number = next((number for number, line in enumerate(lines, 1) if pattern.found_in(line)), None)
        if line_number is None:
            return Observed(False, f"the output has no line with {pattern.text!r}")
        line_numbers.append(line_number)
    return Observed(
        all(before < after for before, after in pairwise(line_numbers)),
        f"lines {', '.join(map(str, line_numbers))} of the output",
    )


def _client_saw(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    return _first(fields["pattern"], run.read(fields["client"]), fields["client"], True)


def _client_lacks(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    return _first(fields["pattern"], run.read(fields["client"]), fields["client"], False)


def _client_status(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    status = run.response(fields["client"]).status
    return Observed(status == fields["status"], f"{fields['client']} got {status or 'no response'}")


def _client_complete(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    response = run.response(fields["client"])
    return Observed(response.complete, f"{fields['client']}'s response: {_how_far(response)}")


def _client_incomplete(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    response = run.response(fields["client"])
    return Observed(not response.complete, f"{fields['client']}'s response: {_how_far(response)}")


def _client_ended(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    end = run.clients[fields["client"]].end
    how = "open" if end is None else end.value
    words = {"open": "is still open", End.FIN.value: "was closed in order", End.RST.value: "was reset"}
    return Observed(
        how == fields["how"], f"{fields['client']}'s connection {words.get(how, 'was closed by the drill')}"
    )


def _close_frame(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    client = run.websocket(fields["client"])
    wanted = fields["code"]
    holds = client.closed_at is not None and wanted in (None, client.close_code)
    return Observed(holds, _close_words(client))


def _no_close_frame(run: CardRun, fields: Mapping[str, Any]) -> Observed:
    client = run.websocket(fields["client"])
    return Observed(client.closed_at is None and client.end is not None, _close_words(client))


OBSERVERS: Final[Mapping[str, Callable[[CardRun, Mapping[str, Any]], Observed]]] = {
    "exit.within": _exit_within,
    "exit.not-within": _exit_not_within,
    "exit.code": _exit_code,
    "exit.signal": _exit_signal,
    "output.matches": _output_matches,
    "output.lacks": _output_lacks,
    "output.order": _output_order,
    "client.saw": _client_saw,
    "client.lacks": _client_lacks,
    "client.status": _client_status,
    "client.complete": _client_complete,
    "client.incomplete": _client_incomplete,
    "client.ended": _client_ended,
    "websocket.close-frame": _close_frame,
    "websocket.no-close-frame": _no_close_frame,
}


def _output(run: CardRun) -> list[str]:
    return run.server.output().splitlines()


def _matches(pattern: Pattern, lines: Sequence[str]) -> bool:
    return any(pattern.found_in(line) for line in lines)


def _first(pattern: Pattern, lines: Sequence[str], where: str, wanted: bool) -> Observed:
    found = next((line for line in lines if pattern.found_in(line)), None)
    what = f"{where} has no line with {pattern.text!r}" if found is None else f"{where} has: {found.strip()[:160]}"
    return Observed((found is not None) is wanted, what)


def _wait(condition: Callable[[], bool], timeout: float) -> bool:
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(POLL)
    return True


def _exit_words(run: CardRun) -> str:
    seconds = run.exit_seconds
    since = "the last signal" if run.signals else "its start"
    if seconds is None:
        waited = time.monotonic() - (run.signals[-1] if run.signals else run.server.started)
        return f"it still ran {waited:.1f} s after {since}"
    code = run.server.exit_code
    if code is None:
        return "the drill has ended it"
    how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    return f"it exited {how}, {abs(seconds):.1f} s {'after' if seconds >= 0 else 'before'} {since}"


def _how_far(response: Response) -> str:
    if response.complete:
        return f"complete, {response.size} bytes"
    return response.error or f"under way, {response.size} bytes so far"


def _close_words(client: WebSocketClient) -> str:
    if client.closed_at is not None:
        return f"{client.name} got a Close frame with {client.close_code}"
    return f"{client.name} got no Close frame; {'its connection ended' if client.end else 'its connection is open'}"

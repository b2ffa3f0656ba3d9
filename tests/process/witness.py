"""What a stop looked like from outside: clients that note what came and when, and the words of ``apps/probe.py``.

All times are of ``time.monotonic()``, which the application's process shares.
"""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

from testing.peer import Answer, Peer, request
from testing.process import ServerProcess

WORDS = re.compile(r"^@([\d.]+) (.*)$", re.MULTILINE)


class Journal:
    """What the application has said, with its times."""

    def __init__(self, server: ServerProcess) -> None:
        self.lines = [(float(at), words) for at, words in WORDS.findall(server.stdout)]

    def all(self, words: str) -> list[float]:
        """When exactly this was said."""
        return [at for at, said in self.lines if said == words]

    def at(self, words: str) -> float:
        """When exactly this was said, once."""
        found = self.all(words)
        assert len(found) == 1, f"{words!r} was said {len(found)} times: {self.lines}"
        return found[0]

    def of(self, name: str) -> list[str]:
        """All that the handler with this id has said, in order."""
        return [said.removeprefix(f"{name} ") for _, said in self.lines if said.startswith(f"{name} ")]


class Client:
    """A connection that is read by a thread of its own from the start: ``data``, how it ``ended``, and when.

    It is closed when the server has closed it.

    :param path: of a request that is sent at once; None for a connection that sends nothing.
    """

    def __init__(
        self, server: ServerProcess, path: str | None = None, *, version: str = "1.1", raw: bytes = b""
    ) -> None:
        self.peer = Peer(server.addresses[0])
        self.data = b""
        self.ended = ""
        self.ended_at = 0.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        if path is not None:
            raw = request(path).replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)
        if raw:
            self.peer.send(raw)
        self._thread.start()

    def _read(self) -> None:
        ended = "FIN"
        try:
            while data := self.peer.sock.recv(65536):
                with self._changed:
                    self.data += data
                    self._changed.notify_all()
        except ConnectionResetError:
            ended = "RST"
        except OSError as error:
            ended = type(error).__name__
        with self._changed:
            self.ended, self.ended_at = ended, time.monotonic()
            self._changed.notify_all()
        self.peer.close()  # as clients do

    def wait_for(self, data: bytes, timeout: float = 10.0) -> None:
        """Wait until this has come."""
        with self._changed:
            self._changed.wait_for(lambda: data in self.data or self.ended != "", timeout)
        assert data in self.data, f"{data!r} is not in {self.data!r} ({self.ended or 'open'})"

    def wait_ended(self, timeout: float = 10.0) -> str:
        """Wait for the end of the connection: ``FIN`` or ``RST``."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.ended != "", timeout), "the connection is still open"
        return self.ended

    @property
    def answers(self) -> list[Answer]:
        """The complete responses that came; anything behind them must be a part of one."""
        return responses(self.data)

    @property
    def answer(self) -> Answer:
        """The one complete response that came."""
        (answer,) = self.answers
        return answer

    @property
    def whole(self) -> bool:
        """Whether what came is complete responses and nothing else: a client could not ask for more."""
        found: list[Answer] = []
        return _take(self.data, found) == b"" and bool(found)

    def close(self) -> None:
        """Leave."""
        self.peer.close()


def responses(data: bytes) -> list[Answer]:
    """The complete responses in ``data``."""
    found: list[Answer] = []
    _take(data, found)
    return found


def _take(data: bytes, found: list[Answer]) -> bytes:
    """Move complete responses from ``data`` to ``found``; return what is left."""
    while data:
        head, blank, rest = data.partition(b"\r\n\r\n")
        if not blank:
            break
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if headers.get("transfer-encoding") == "chunked":
            body, complete, rest = _dechunk(rest)
        else:
            length = int(headers.get("content-length", "-1"))
            body, complete, rest = rest[:length], 0 <= length <= len(rest), rest[length:]
        if not complete:
            break
        found.append(Answer(int(lines[0].split(" ")[1]), headers, body))
        data = rest
    return data


def _dechunk(data: bytes) -> tuple[bytes, bool, bytes]:
    """The body, whether its last chunk is there, and what comes behind it."""
    body = b""
    while True:
        line, end, rest = data.partition(b"\r\n")
        if not end or len(rest) < int(line, 16) + 2:
            return body, False, data
        size = int(line, 16)
        body, data = body + rest[:size], rest[size + 2 :]
        if size == 0:
            return body, True, data


def report(path: Path) -> dict[str, Any]:
    """What ``--drain-report`` wrote; it adds up, or this fails."""
    (line,) = path.read_text(encoding="utf-8").splitlines()
    found: dict[str, Any] = json.loads(line)
    words = ("finished", "closed_by_policy", "broken_off", "disconnected", "cancelled", "abandoned")
    outcomes = [found[name] for name in words]
    assert sum(found["in_flight"].values()) + found["arrived"] == sum(outcomes), found
    return found


def cuts(found: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    """Some fields of each response that a report says was cut, in order of the path."""
    return sorted(tuple(cut[name] for name in names) for cut in found["cut"])

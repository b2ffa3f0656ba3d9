"""The clients of `fleet`: they ask all the time, and note who answered when, and every request that got no answer.

A request is lost when its connection is refused or reset, when it ends without the whole answer, when the status is
not 200, or after ANSWER_SECONDS. A kept-alive client looks before it sends, as connection pools do: a close that has
arrived by then, or was announced in the last answer, costs a new connection and no request. A request that is under way
when the server closes is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ..errors import BenchError

ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.005
_KEPT = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_FRESH = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """One answer of `bench/apps/versioned.py`. All times are seconds of the monotonic clock, which processes share.

    `began` and `ended` are those of the application's import in the process `pid`.
    """

    asked: float
    answered: float
    version: str
    pid: int
    began: float
    ended: float


@dataclass(frozen=True)
class Lost:
    """A request without its answer: when it was asked, on what kind of connection, and what happened."""

    asked: float
    kept: bool
    why: str


class Clients:
    """Clients of the server on `port`, as tasks of the running loop; leaving the context ends them.

    `first` has the first answer of each process, `last` the time of the last answer of each version.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.answers: list[Answer] = []
        self.lost: list[Lost] = []
        self.reconnects = 0
        self.first: dict[int, Answer] = {}
        self.last: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close themselves in the loop's next turn

    def closed_loop(self, *, kept: int, fresh: int, pause: float) -> None:
        """Start so many clients with a kept connection, and so many with a new one for each request.

        Each of them waits `pause` seconds between an answer and its next request.
        """
        for _ in range(kept):
            self._start(self._keep(pause))
        for _ in range(fresh):
            self._start(self._renew(pause))

    def open_loop(self, every: float) -> None:
        """Start a request on a new connection every so many seconds, whether earlier ones were answered or not."""
        self._start(self._shoot(every))

    async def until(self, reached: Callable[[], bool], seconds: float, what: str) -> None:
        """Return once `reached()`. Raises BenchError, which says that `what` did not happen, after `seconds`."""
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                last = f"; last: {self.lost[-1].why}" if self.lost else ""
                raise BenchError(f"{what} within {seconds:g} s ({len(self.lost)} requests lost{last})")
            await asyncio.sleep(_POLL_SECONDS)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, pause: float) -> None:
        connection: _Connection | None = None
        try:
            while True:
                if connection is not None and connection.over:
                    connection.close()
                    connection = None
                    self.reconnects += 1
                connection = await self._ask(connection, kept=True)
                await asyncio.sleep(pause)
        finally:
            if connection is not None:
                connection.close()

    async def _renew(self, pause: float) -> None:
        while True:
            await self._ask(None, kept=False)
            await asyncio.sleep(pause)

    async def _shoot(self, every: float) -> None:
        due = time.monotonic()
        while True:
            self._start(self._once())
            due = max(due + every, time.monotonic())  # after a pause of this machine: no burst that makes up for it
            await asyncio.sleep(due - time.monotonic())

    async def _once(self) -> None:
        await self._ask(None, kept=False)

    async def _ask(self, connection: _Connection | None, *, kept: bool) -> _Connection | None:
        """One request, its answer or its loss noted; returns the connection, None when it has failed or is not kept."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if connection is None:
                    connection = await _Connection.open(self._port)
                body = await connection.ask(_KEPT if kept else _FRESH)
            version, pid, began, ended = body.decode().split()
            answer = Answer(asked, time.monotonic(), version, int(pid), float(began), float(ended))
        except (OSError, EOFError, ValueError, LookupError, asyncio.LimitOverrunError) as exc:  # OSError: timeout too
            self.lost.append(Lost(asked, kept, f"{type(exc).__name__}: {exc}"))
            if connection is not None:
                connection.close()
            return None
        except asyncio.CancelledError:
            if connection is not None:
                connection.close()
            raise
        self._note(answer)
        if not kept:
            connection.close()
            return None
        return connection

    def _note(self, answer: Answer) -> None:
        self.answers.append(answer)
        self.first.setdefault(answer.pid, answer)
        self.last[answer.version] = answer.answered


class _Connection:
    """A connection to the server, and what is known of its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._announced = False

    @classmethod
    async def open(cls, port: int) -> _Connection:
        """Raises OSError."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @property
    def over(self) -> bool:
        """Whether the server has closed it, or said that it will."""
        return self._announced or self._reader.at_eof() or self._reader.exception() is not None

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer. Raises OSError or EOFError without one, ValueError or LookupError for a wrong one."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        if head[0].split()[1] != "200":
            raise ValueError(f"status line {head[0]!r}")
        fields = dict(line.split(":", 1) for line in head[1:] if line)
        self._announced = "close" in fields.get("connection", "")
        return await self._reader.readexactly(int(fields["content-length"]))

    def close(self) -> None:
        """Let go of it."""
        with contextlib.suppress(OSError):
            self._writer.close()

"""Services of several workers for tests: a parent in a directory of its own, with an application that can be changed.

::

    with Service(tmp_path, "--workers", "2") as service:
        assert service.ask("/generation") == "1"
        service.deploy(generation="2")
        service.signal(signal.SIGHUP)
        service.wait_for("generation 2")
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from testing.peer import Answer, Peer, eventually
from testing.process import ServerProcess

APP = '''\
"""The application of a test. GENERATION and the lines of EXTRA are put in by `Service.deploy`."""

import asyncio
import os
import signal
import sys
import time

GENERATION = "{generation}"
{extra}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if "startup" in message["type"]:
                await startup()
            else:
                await shutdown()
            await send({{"type": message["type"] + ".complete"}})
            if "shutdown" in message["type"]:
                return
    path, _, query = scope["path"].partition("/")[2].partition("/")
    answer = globals().get("answer_" + (path or "generation"))
    if answer is None:
        await send({{"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]}})
        await send({{"type": "http.response.body", "body": b""}})
        return
    body = await answer(query, send)
    if body is not None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({{"type": "http.response.start", "status": 200, "headers": headers}})
        await send({{"type": "http.response.body", "body": body.encode()}})


async def answer_generation(query, send):
    return GENERATION


async def answer_pid(query, send):
    return str(os.getpid())


async def answer_number(query, send):
    return os.environ["LASTCALL_WORKER_ID"]


async def answer_variable(query, send):
    return os.environ.get(query, "")


async def answer_flags(query, send):
    return repr((sys.flags.optimize, sys.flags.dev_mode, sys._xoptions, sys.stdin.read() if sys.stdin else None))


async def answer_slow(query, send):
    print("slow began", flush=True)
    await asyncio.sleep(float(query))
    return GENERATION


async def answer_stubborn(query, send):
    print("stubborn began", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("stubborn was cancelled", flush=True)


async def answer_block(query, send):
    print("block began", flush=True)
    time.sleep(float(query))
    return GENERATION


async def answer_stream(query, send):
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}})
    while True:
        await send({{"type": "http.response.body", "body": b"data: tick\\n\\n", "more_body": True}})
        await asyncio.sleep(0.1)
'''

LIFESPAN = """

async def startup():
    pass


async def shutdown():
    print("the shutdown code ran", flush=True)
"""


class Service:
    """A ``lastcall`` of several workers in ``directory``. Options that say where to listen are its own."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        extra: str = "",
        env: Mapping[str, str] | None = None,
        ready: bool = True,
        python: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.control = directory / "control.sock"
        self._ready = ready
        self.deploy(extra=extra)
        options = (*options, "--control-socket", str(self.control))
        if python:
            command = [*python, "-m", "lastcall"]
            self.process = ServerProcess(["app:app", *options, "--port", "0"], None, env, directory, command=command)
        else:
            self.process = ServerProcess(options, "app:app", env, directory)

    def __enter__(self) -> Self:
        self.process.start()
        if self._ready:
            self.process.wait_ready()
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        workers = self.workers
        if kind is not None:  # pytest shows it with the failure
            print(self.process.stderr)
        self.process.kill()
        # No orphan outlives the parent: who is left drains, and has seconds for that in these tests.
        eventually(lambda: not any(map(alive, workers)))

    def deploy(self, *, generation: str = "1", extra: str = "", text: str | None = None) -> None:
        """Change the application, as an atomic replacement. ``extra`` comes before its functions; ``text``: instead."""
        defined = "" if "def startup" in extra else LIFESPAN
        body = APP.format(generation=generation, extra=extra + defined) if text is None else text
        fresh = self.directory / "app.py.new"
        fresh.write_text(body)
        fresh.rename(self.directory / "app.py")

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.process.addresses[0]

    @property
    def workers(self) -> list[int]:
        """The pids of the parent's children."""
        return children(self.process.pid)

    def connect(self) -> Peer:
        """A connection."""
        return Peer(self.address)

    def get(self, path: str = "/") -> Answer:
        """The answer to one request on a connection of its own."""
        with self.connect() as peer:
            return peer.get(path, "Connection: close")

    def ask(self, path: str = "/") -> str:
        """Its body."""
        answer = self.get(path)
        assert answer.status == 200, answer
        return answer.body.decode()

    def pids(self) -> set[int]:
        """The workers that answer, by many connections."""
        return {int(self.ask("/pid")) for _ in range(40)}

    def wait_workers(self, count: int) -> set[int]:
        """Wait until so many workers answer; their pids."""
        found: set[int] = set()

        def enough() -> bool:
            nonlocal found
            found = self.pids()
            return len(found) == count

        eventually(enough)
        return found

    def signal(self, number: int) -> None:
        """Send the parent a signal."""
        self.process.signal(number)

    def wait_for(self, pattern: str) -> None:
        """Wait for a line on standard error."""
        self.process.wait_for(pattern)


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads (proc(5)); none where it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
            found += map(int, text.split())
    except OSError:
        pass
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False

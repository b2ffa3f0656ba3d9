"""A small ASGI server over asyncio's streams that stops well, but for one fault that it can be asked for.

    python tiny.py MODULE:APP --port N [--uds PATH] --grace SECONDS [--fault NAME]

It is what the drill's judges are tested on. The faults are in ``FAULTS``, with what they do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

FAULTS = {
    "": "none",
    "waits-for-ever": "the grace does not end what runs",
    "no-grace": "everything is cancelled at the signal",
    "ends-cleanly": "a stream that is cut gets a last chunk",
    "early-disconnect": "http.disconnect comes at the signal",
    "cancels-only": "http.disconnect does not come before the cancel",
    "no-close": "answers do not say Connection: close",
    "resets": "idle connections are reset",
    "waits-for-idle": "idle connections hold the stop",
    "serves-on": "kept-alive connections are served on",
    "keeps-listener": "the listener stays open while lifespan.shutdown runs",
    "no-lifespan": "lifespan.shutdown is not run",
    "lifespan-first": "lifespan.shutdown is run before tasks are cancelled",
    "lifespan-unbounded": "lifespan.shutdown may take for ever",
    "forces": "the second signal ends the process at once",
    "drops-work": "work after the response is not waited for, nor cancelled",
    "exit-code": "a clean stop ends with exit code 1",
    "start-code": "a failed start ends with exit code 0",
    "no-atexit": "the process ends without Python's end",
    "traceback": "a traceback is printed for each cancel",
    "leaves-file": "the file of the unix socket stays",
    "stubborn-file": "a file that is there keeps it from starting",
    "deaf-start": "signals are not heard while the application starts",
    "half-head": "a half-read head is closed at the signal",
    "deaf": "no signal is heard",
    "quits": "it ends by itself after the first answer",
    "crash": "it ends before it listens",
    "abrupt": "idle connections are closed at the signal, without a word",
    "recycle-cuts": "it ends at its last request",
}
LIFESPAN_SECONDS = 1.0


class Server:
    def __init__(self, app: Any, options: argparse.Namespace) -> None:
        self.app = app
        self.fault: str = options.fault
        self.grace: float = options.grace
        self.options = options
        self.stopping = asyncio.Event()
        self.cutting = asyncio.Event()
        self.requests: set[asyncio.Task[None]] = set()
        self.connections: set[asyncio.Task[None]] = set()
        self.idle: set[asyncio.StreamWriter] = set()
        self.signals = 0
        self.served = 0

    # the stop

    def heard(self) -> None:
        self.signals += 1
        if self.fault == "forces" and self.signals > 1:
            os._exit(1)
        self.stopping.set()

    async def serve(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if self.fault in ("deaf", "deaf-start"):
                signal.signal(number, signal.SIG_IGN)
            else:
                loop.add_signal_handler(number, self.heard)
        self.to_app: asyncio.Queue[Any] = asyncio.Queue()
        self.from_app: asyncio.Queue[Any] = asyncio.Queue()
        lifespan = loop.create_task(self.app({"type": "lifespan"}, self.to_app.get, self.from_app.put))
        self.to_app.put_nowait({"type": "lifespan.startup"})
        answer = loop.create_task(self.from_app.get())
        stop = loop.create_task(self.stopping.wait())
        await asyncio.wait({answer, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            lifespan.cancel()
            return 0
        if answer.result()["type"].endswith("failed"):
            print(answer.result()["message"])
            return 0 if self.fault == "start-code" else 3
        if self.fault == "deaf-start":
            loop.add_signal_handler(signal.SIGTERM, self.heard)
        listener = await self.listen()
        if self.options.ready_fd is not None:
            os.write(self.options.ready_fd, b"r")
            os.close(self.options.ready_fd)
        await self.stopping.wait()
        await self.stop(listener)
        if self.options.uds:
            with contextlib.suppress(FileNotFoundError):  # CPython 3.13 has removed it already
                os.unlink(self.options.uds)
            if self.fault == "leaves-file":
                Path(self.options.uds).touch()
        if self.fault == "drops-work":
            os._exit(0)
        return 1 if self.fault == "exit-code" else 0

    def count(self, _: object) -> None:
        """A worker stops after so many requests."""
        self.served += 1
        if self.served == self.options.max_requests:
            if self.fault == "recycle-cuts":
                asyncio.get_running_loop().call_later(0.01, os._exit, 0)
            else:
                self.stopping.set()

    async def listen(self) -> asyncio.Server:
        if self.options.fd is not None:
            return await asyncio.start_server(self.connected, sock=socket.socket(fileno=self.options.fd))
        if self.options.reuse_port:
            return await asyncio.start_server(self.connected, "127.0.0.1", self.options.port, reuse_port=True)
        if not self.options.uds:
            return await asyncio.start_server(self.connected, "127.0.0.1", self.options.port, backlog=200)
        listener = socket.socket(socket.AF_UNIX)
        if self.fault != "stubborn-file":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.options.uds)
        listener.bind(self.options.uds)
        return await asyncio.start_unix_server(self.connected, sock=listener)

    async def stop(self, listener: asyncio.Server) -> None:
        if self.fault != "keeps-listener":
            listener.close()
        if self.fault == "early-disconnect":
            self.cutting.set()
        if self.fault == "no-grace":
            await self.cancel()
        elif self.fault == "lifespan-first":
            await self.wait_grace()
            await self.shut_down()
            await self.cancel()
            return
        else:
            await self.wait_grace()
            if self.fault != "cancels-only":
                self.cutting.set()
                await asyncio.sleep(0.05)
            await self.cancel()
        await self.shut_down()
        listener.close()

    async def wait_grace(self) -> None:
        end = time.monotonic() + (3600 if self.fault == "waits-for-ever" else self.grace)
        # A worker has time: another one serves meanwhile.
        patience = 0.3 if self.options.fd is None else 2.0
        linger = time.monotonic() + (0 if self.fault in ("half-head", "abrupt") else patience)
        while time.monotonic() < end:
            if time.monotonic() > linger and self.fault not in ("waits-for-idle", "serves-on"):
                self.close_idle()
            await asyncio.sleep(0.02)  # who was accepted just now is let in
            held = self.connections if self.fault == "waits-for-idle" or self.options.fd is not None else ()
            if not self.requests and not held and not self.idle:
                return

    def close_idle(self) -> None:
        for writer in self.idle:
            if self.fault == "resets":
                once = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, once)
            writer.close()
        self.idle.clear()

    async def cancel(self) -> None:
        if self.fault == "traceback" and self.requests:
            print("Traceback (most recent call last):\nasyncio.exceptions.CancelledError")
        for task in self.requests:
            task.cancel()
        if self.requests:
            await asyncio.wait(self.requests, timeout=1.0)

    async def shut_down(self) -> None:
        if self.fault == "no-lifespan":
            return
        self.to_app.put_nowait({"type": "lifespan.shutdown"})
        limit = None if self.fault == "lifespan-unbounded" else LIFESPAN_SECONDS + self.grace
        with contextlib.suppress(asyncio.TimeoutError):
            print((await asyncio.wait_for(self.from_app.get(), limit)).get("message", ""))

    # connections

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self.request(reader, writer):
                    pass
        finally:
            self.connections.discard(task)
            self.idle.discard(writer)
            writer.close()

    async def request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.idle.add(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        self.idle.discard(writer)
        line, *fields = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = line.split(" ")
        headers = [(name.lower().encode(), value.strip().encode()) for name, _, value in map(_split, fields)]
        path, _, query = target.partition("?")
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers}
        exchange = Exchange(self, reader, writer, dict(headers))
        task = asyncio.get_running_loop().create_task(self.app(scope, exchange.receive, exchange.send))
        self.requests.add(task)
        if self.fault == "quits":
            task.add_done_callback(lambda _: asyncio.get_running_loop().call_later(0.1, os._exit, 7))
        task.add_done_callback(self.requests.discard)
        task.add_done_callback(self.count)
        done = asyncio.get_running_loop().create_task(exchange.complete.wait())
        await asyncio.wait({task, done}, return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        if self.fault == "drops-work" and exchange.complete.is_set():
            self.requests.discard(task)
        if not exchange.complete.is_set():
            if self.fault == "ends-cleanly":
                writer.write(b"0\r\n\r\n")
            return False
        return not exchange.closing


class Exchange:
    def __init__(self, server: Server, reader: Any, writer: asyncio.StreamWriter, headers: dict[bytes, bytes]) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.left = int(headers.get(b"content-length", b"0"))
        self.asked_to_close = headers.get(b"connection", b"").lower() == b"close"
        self.read = False
        self.chunked = False
        self.closing = False
        self.complete = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if not self.read:
            data = await self.reader.read(min(self.left, 65536)) if self.left else b""
            self.left -= len(data)
            self.read = not self.left
            return {"type": "http.request", "body": data, "more_body": not self.read}
        await self.server.cutting.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            lines = [f"HTTP/1.1 {message['status']} OK".encode()]
            lines += [name + b": " + value for name, value in message["headers"]]
            self.chunked = not any(name == b"content-length" for name, _ in message["headers"])
            draining = self.server.stopping.is_set() and self.server.fault != "serves-on"
            self.closing = self.asked_to_close or draining
            if self.closing and (self.asked_to_close or self.server.fault != "no-close"):
                lines.append(b"connection: close")
            if self.chunked:
                lines.append(b"transfer-encoding: chunked")
            self.writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
            return
        data, more = message.get("body", b""), message.get("more_body", False)
        if self.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data += b"" if more else b"0\r\n\r\n"
        self.writer.write(data)
        await self.writer.drain()
        if not more:
            self.closing = self.closing or (self.server.stopping.is_set() and self.server.fault != "serves-on")
            self.complete.set()


def _split(line: str) -> tuple[str, str, str]:
    return line.partition(":")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("--port", type=int)
    parser.add_argument("--uds")
    parser.add_argument("--fd", type=int)
    parser.add_argument("--reuse-port", action="store_true")
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--max-requests", type=int)
    parser.add_argument("--grace", type=float, default=5.0)
    parser.add_argument("--fault", choices=FAULTS, default="")
    options = parser.parse_args()
    if options.fault == "crash":
        sys.exit("tiny: the port is not to my liking")
    module, _, name = options.app.partition(":")
    code = asyncio.run(Server(getattr(import_module(module), name), options).serve())
    sys.stdout.flush()
    if options.fault == "no-atexit":
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()

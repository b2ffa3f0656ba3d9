"""Clients and applications that do what nobody should: bounded, over real sockets and both drivers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from typing import Any

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.base.types import Receive, Scope, Send
from testing.peer import eventually
from testing.running import respond, running

DRIVERS = pytest.mark.parametrize("driver", ["native", "asyncio"])
START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def resident() -> int:
    """KiB of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after 0.3 ms of work in one piece."""
    end = time.perf_counter() + 0.0003
    while time.perf_counter() < end:
        pass
    await respond(send)


@DRIVERS
@pytest.mark.parametrize("requests", [3, 150, 2000])
def test_all_pipelined_requests_in_front_of_a_fin_are_answered(driver: str, requests: int) -> None:
    one = b"GET / HTTP/1.1\r\nHost:a\r\nX: " + b"y" * 300 + b"\r\n\r\n"
    with running(busy, driver=driver) as run:
        peer = run.peer()
        peer.send(one * requests)
        peer.finish()
        assert peer.rest().count(b"HTTP/1.1 200") == requests
        peer.close()


def test_a_client_that_pipelines_faster_than_it_is_served_is_not_read_any_further() -> None:
    one = b"GET / HTTP/1.1\r\nHost:a\r\nX: " + b"y" * 300 + b"\r\n\r\n"
    with running(busy, driver="native") as run:
        before = resident()
        with socket.create_connection(run.address) as client:
            client.setblocking(False)
            sent, end = 0, time.monotonic() + 1.5
            while time.monotonic() < end:
                try:
                    sent += client.send(one * 200)
                except BlockingIOError:
                    time.sleep(0.002)
                with contextlib.suppress(BlockingIOError):
                    client.recv(1 << 20)
            assert resident() - before < 16 * 1024
            assert sent > 100_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_holds_a_closed_connection_costs_no_cpu() -> None:
    children: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/fork":
            child = os.fork()
            if child == 0:
                os.close(int(scope["query_string"]))  # the test client's end
                time.sleep(8)
                os._exit(0)
            children.append(child)
        await respond(send)

    with running(app, driver="native") as run:
        peer = run.peer()
        peer.get(f"/fork?{peer.sock.fileno()}")
        peer.close()
        eventually(lambda: run.connections == 0)
        start = time.process_time()
        time.sleep(0.5)
        spent = time.process_time() - start
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)
    assert spent < 0.2


@DRIVERS
def test_after_a_refusal_in_mid_body_send_raises_so_that_no_stream_goes_on_for_ever(driver: str) -> None:
    raised: list[type[BaseException]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        peers[0].send(b"zz\r\n")  # now: a head that is held goes out after some milliseconds
        await asyncio.sleep(0.2)
        try:
            while True:
                await send(body(b"x", more=True))
        except ClientDisconnected as error:
            raised.append(type(error))
            raise

    with running(app, driver=driver) as run, run.peer() as peer:
        peers = [peer]
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert peer.answer().status == 400
        eventually(lambda: raised == [ClientDisconnected])


def test_an_unread_body_is_not_kept_while_the_client_does_not_read_either() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(body(b"x" * 20_000_000))

    with running(app, driver="native") as run, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(run.address)
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\nx")
        time.sleep(0.1)
        before, top, sent = resident(), 0, 0
        client.settimeout(0.3)
        try:
            while sent < 100 << 20:
                sent += client.send(b"y" * (1 << 20))
                top = max(top, resident())
        except OSError:
            pass
        assert top - before < 16 * 1024


@DRIVERS
def test_a_send_that_waits_ends_when_another_task_completes_the_response(driver: str) -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)

        async def big() -> None:
            await send(body(b"x" * 8_000_000, more=True))
            ended.append("big")

        task = asyncio.create_task(big())
        await asyncio.sleep(0.1)
        await send(body(b"end"))
        await task
        ended.append("app")

    with running(app, driver=driver) as run:
        peer = run.peer(receive_buffer=4096)
        peer.request("/")
        time.sleep(0.3)
        assert len(peer.answer().body) == 8_000_003
        eventually(lambda: ended == ["big", "app"])
        peer.close()


@DRIVERS
def test_cut_by_a_stop_an_answer_that_only_the_close_delimits_ends_in_a_reset(driver: str) -> None:
    """A FIN would make the part look like the whole, also where the last bytes sit in a transport."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        while True:
            await send(body(b"x" * 9000, more=True))
            await asyncio.sleep(0.0005)

    with running(app, driver=driver, timeout_graceful_shutdown=0, timeout_cancel=0.5) as run:
        peer = run.peer(receive_buffer=4096)
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        time.sleep(1)
        run.server.force_exit = True
        peer.head()
        with pytest.raises(ConnectionResetError):
            peer.rest()
        peer.close()

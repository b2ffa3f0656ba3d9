"""``Server`` as a library: in a thread, in a loop of somebody else's, stopped in every way."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lastcall
from lastcall import Server, StopReport
from lastcall.base.errors import ConfigError, StartupError
from lastcall.base.options import BindSpec
from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.escalation import Escalation
from lastcall.net.binding import bind
from lastcall.server.parts import connection_limit, max_requests
from testing.peer import Peer, eventually
from testing.running import Gate, Lines, config, hello, respond, routes, running, server_log


@pytest.fixture
def log() -> Iterator[Lines]:
    with server_log() as lines:
        yield lines


class Life:
    """An application that keeps what its lifespan did, and what of its requests ran."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.began = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["name"] = "value"
            for word in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{word}"
                self.events.append(word)
                await send({"type": f"lifespan.{word}.complete"})
        elif scope["path"] == "/hang":
            self.began.set()
            try:
                await asyncio.sleep(1000)
            finally:
                self.events.append("cancelled")
        else:
            await respond(send, scope.get("state", {}).get("name", "-").encode())


# In a thread.


@pytest.mark.parametrize("how", ["drain", "should_exit"])
def test_a_server_in_a_thread_is_stopped_from_another(how: str) -> None:
    app = Life()
    with running(app, lifespan="on") as server:
        assert server.server.started
        assert not server.server.should_exit
        with server.peer() as peer:
            assert peer.get().body == b"value"
            if how == "drain":
                server.server.drain("maintenance")
            else:
                server.server.should_exit = True
            assert server.server.should_exit
            assert peer.ended() == "FIN"
        report = server.join()
    assert report.cause == ("maintenance" if how == "drain" else "api")
    assert (report.exit_code, report.lifespan) == (0, "complete")
    assert app.events == ["startup", "shutdown"]
    assert not server.server.started


def test_force_exit_cancels_what_runs_and_shuts_the_application_down(log: Lines) -> None:
    app = Life()
    with running(app, lifespan="on") as server, server.peer() as peer:
        peer.request("/hang")
        assert app.began.wait(5)
        server.server.drain()
        peer.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.head()
        assert not server.server.force_exit
        server.server.force_exit = True
        assert server.server.force_exit
        report = server.join(3)
    assert app.events == ["startup", "cancelled", "shutdown"]
    assert (report.in_flight, report.finished, report.cancelled, report.abandoned) == ({"request": 1}, 0, 1, 0)
    assert [(cut.path, cut.outcome) for cut in report.cut] == [("/hang", "cancelled")]
    assert not any(record.exc_info for record in log.records)


def test_force_exit_is_an_order_too(log: Lines) -> None:
    app = Life()
    with running(app, lifespan="on") as server, server.peer() as peer:
        peer.request("/hang")
        assert app.began.wait(5)
        server.server.force_exit = True
        assert server.server.should_exit
        assert peer.answer().status == 503
        report = server.join(3)
    assert app.events == ["startup", "cancelled", "shutdown"]
    assert report.phases.keys() == {"CANCELLING", "CLOSING"}


def test_only_signals_escalate() -> None:
    app = Life()
    with running(app, lifespan="on", timeout_graceful_shutdown=5) as server, server.peer() as peer:
        peer.request("/hang")
        assert app.began.wait(5)
        for _ in range(3):
            server.server.drain()
            server.server.should_exit = True
        assert peer.silent(0.7)
        assert not server.server.force_exit


def test_the_end_can_be_waited_for_in_any_loop() -> None:
    async def main() -> list[StopReport]:
        waiting = [asyncio.create_task(server.server.wait_stopped()) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        server.server.drain("maintenance")
        found = await asyncio.wait_for(asyncio.gather(*waiting), 5)
        return [*found, await server.server.wait_stopped()]  # and afterwards

    with running(Life(), lifespan="on") as server:
        found = asyncio.run(main())
        assert found == [server.join()] * 3
        assert found[0].cause == "maintenance"


def test_who_waits_for_the_end_hears_of_a_start_that_failed() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        server = Server(config(app, lifespan="on"))
        serving = asyncio.create_task(server.serve())
        with pytest.raises(StartupError, match="no database"):
            await asyncio.wait_for(server.wait_stopped(), 5)
        with pytest.raises(StartupError, match="no database"):
            await serving

    asyncio.run(main())


def test_a_loop_of_somebody_elses_keeps_its_hooks() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            hooks.append(sys.get_asyncgen_hooks())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    async def main() -> None:
        hooks.append(sys.get_asyncgen_hooks())
        server = Server(config(app, lifespan="on"))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        hooks.append(sys.get_asyncgen_hooks())
        server.drain()
        await serving

    hooks: list[object] = []
    asyncio.run(main())
    assert len(hooks) == 3
    assert len(set(hooks)) == 1


def test_a_waiter_that_is_cancelled_disturbs_nobody() -> None:
    async def main() -> None:
        waiting = asyncio.create_task(server.server.wait_stopped())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with running(hello) as server:
        asyncio.run(main())
        assert server.stop().exit_code == 0


def test_orders_that_are_taken_back_are_none() -> None:
    with running(hello) as server:
        server.server.should_exit = False
        server.server.force_exit = False
        with server.peer() as peer:
            assert peer.get().status == 200
        assert not server.server.should_exit


def test_an_order_before_the_start_is_kept() -> None:
    app = Life()
    server = Server(config(app, lifespan="on"))
    server.should_exit = True
    report = server.run()
    assert (report.exit_code, report.lifespan, report.cause) == (0, "not started", "api")
    assert app.events == []


def test_an_order_after_the_end_changes_nothing() -> None:
    with running(hello) as server:
        report = server.stop()
        server.server.force_exit = True
        server.server.drain("late")
    assert report.cause == "api"


def test_an_order_may_come_from_a_signal_handler_that_interrupts_another_order() -> None:
    server = Server(config(hello))
    earlier = signal.signal(signal.SIGALRM, lambda *_: server.drain("handler"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for _ in range(200_000):
            server.drain("main")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert server.should_exit
    assert not server.force_exit


def test_a_server_serves_once() -> None:
    with running(hello) as server:
        server.stop()
        with pytest.raises(RuntimeError):
            server.server.run()


def test_addresses_are_the_real_ones(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with running(hello, bind=["127.0.0.1:0", "[::1]:0", f"unix:{path}"]) as server:
        four, six, unix = server.server.addresses
        assert four[0] == "127.0.0.1"
        assert four[1] != 0
        assert six[0] == "::1"
        assert unix == path
        for address in server.server.addresses:
            with Peer(address) as peer:
                assert peer.get().status == 200


def test_given_sockets_replace_the_configured_addresses_and_are_closed_at_the_end() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    addresses = [listening.getsockname(), bound.getsockname()]
    with running(hello, sockets=[listening, bound], port=1) as server:
        assert server.server.addresses == addresses
        for address in addresses:
            with Peer(address) as peer:
                assert peer.get().status == 200
        server.stop()
    assert listening.fileno() == bound.fileno() == -1


def test_the_report_counts_every_request_once(log: Lines) -> None:
    gate = Gate()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await respond(send)

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1000)

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                continue

    app = routes(slow=slow, hang=hang, stubborn=stubborn)
    with running(app, timeout_cancel=0.1) as server, server.peer() as a, server.peer() as b, server.peer() as c:
        assert a.get().status == 200
        for peer, path in ((a, "/slow"), (b, "/hang"), (c, "/stubborn")):
            peer.request(path)
        eventually(lambda: len(server.server._tasks) == 3)
        server.server.drain()
        gate.open()
        assert a.answer().status == 200
        a.close()
        server.server.force_exit = True
        report = server.join()
    assert (report.in_flight, report.finished, report.cancelled, report.abandoned) == ({"request": 3}, 1, 1, 1)
    assert report.left == ("GET /stubborn",)
    assert {(cut.path, cut.outcome) for cut in report.cut} == {("/hang", "cancelled"), ("/stubborn", "abandoned")}
    assert (report.exit_code, report.cause) == (5, "api")
    assert str(report) in log.messages()


def test_tasks_that_begin_when_the_lifespan_shuts_down_are_the_teardowns_and_the_report_adds_up() -> None:
    ended: list[str] = []

    async def work(name: str, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(name)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        tasks = [asyncio.create_task(work(name, seconds)) for name, seconds in (("short", 0.01), ("long", 1000))]
        for task in tasks:
            lastcall.track(task)
        await asyncio.sleep(0.05)
        await send({"type": "lifespan.shutdown.complete"})

    with running(app, lifespan="on") as server:
        report = server.stop()
    assert (report.exit_code, report.total, report.finished, report.cancelled) == (0, 0, 0, 0)
    assert ended == ["short", "long"]


def test_the_number_of_requests_is_a_cause() -> None:
    with running(hello, limit_max_requests=2) as server:
        with server.peer() as peer:
            assert peer.get().status == peer.get().status == 200
            assert peer.ended() == "FIN"
        assert server.join().cause == "max-requests"


def test_the_number_of_requests_has_a_jitter_of_its_own() -> None:
    drawn = random.Random(1).randint
    assert {max_requests(10, 3, drawn) for _ in range(200)} == {10, 11, 12, 13}
    assert {max_requests(10, 0, drawn) for _ in range(20)} == {10}
    assert max_requests(None, 3, drawn) is None


def test_the_jitter_of_the_number_of_requests_takes_effect() -> None:
    random.seed(1)
    jitter = random.randint(0, 20)
    assert jitter > 0
    random.seed(1)
    with running(hello, limit_max_requests=2, limit_max_requests_jitter=20) as server:
        with server.peer() as peer:
            for _ in range(2 + jitter):
                assert peer.get().status == 200
            assert peer.ended() == "FIN"
        assert server.join().cause == "max-requests"


def test_connections_are_limited_by_default_to_what_the_descriptor_limit_leaves() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert connection_limit(None) == connection_limit(None, 8) == soft - 64
    assert connection_limit(None, 100) == soft - 64 - 92, "a worker has the listeners of all slots"
    assert connection_limit(7) == 7
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
        assert connection_limit(None) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_a_client_in_the_backlog_is_answered_at_the_stop(driver: str) -> None:
    with running(hello, driver=driver, host="127.0.0.1", port=0) as server:
        peers = []

        def connect_and_stop() -> None:  # in the loop, so that nobody is accepted meanwhile
            for _ in range(5):
                peer = server.peer()
                peer.request()
                peers.append(peer)
            server.server.drain()

        server.call(connect_and_stop)
        eventually(lambda: len(peers) == 5)
        for peer in peers:
            answer = peer.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            peer.close()
        assert server.join(3).finished == 5


# In a loop that is not ours.


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


def test_serve_runs_beside_other_tasks_and_leaves_them_alone() -> None:
    async def main() -> tuple[StopReport, bool, set[object]]:
        other = asyncio.create_task(asyncio.sleep(1000))
        server = Server(config(hello))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"ok")
        writer.close()
        await writer.wait_closed()
        server.drain()
        report = await serving
        left = asyncio.all_tasks() - {asyncio.current_task(), other}
        running = not other.done()
        other.cancel()
        return report, running, set(left)

    report, running, left = asyncio.run(main())
    assert (report.exit_code, running, left) == (0, True, set())


def test_two_servers_share_a_loop() -> None:
    async def main() -> list[int]:
        servers = [Server(config(hello)) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(server.serve()) for server in servers]
            for server in servers:
                await until(lambda server=server: server.started)
            for server in servers:
                server.drain()
        return [task.result().exit_code for task in tasks]

    earlier = signal.getsignal(signal.SIGTERM)
    assert asyncio.run(main()) == [0, 0]
    assert signal.getsignal(signal.SIGTERM) is earlier, "whichever of them ended first"


def test_a_signal_stops_every_server_of_the_process() -> None:
    async def main() -> list[str]:
        servers = [Server(config(hello)) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(server.serve()) for server in servers]
            for server in servers:
                await until(lambda server=server: server.started)
            signal.raise_signal(signal.SIGTERM)
        return [task.result().cause for task in tasks]

    assert asyncio.run(main()) == ["SIGTERM", "SIGTERM"]


def test_cancelling_serve_cancels_requests_shuts_down_and_raises() -> None:
    app = Life()

    async def main() -> None:
        server = Server(config(app, lifespan="on"))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(app.began.is_set)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        await writer.wait_closed()
        assert not server.started
        assert server.should_exit

    asyncio.run(main())
    assert app.events == ["startup", "cancelled", "shutdown"]


def test_cancelling_serve_while_the_application_starts_ends_its_task() -> None:
    ended = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(True)

    async def main() -> None:
        serving = asyncio.create_task(Server(config(app, lifespan="on")).serve())
        await asyncio.sleep(0.05)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert ended == [True]


# Signals.

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


def serve_until(server: Server, then: object) -> StopReport:
    async def main() -> StopReport:
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        then()  # type: ignore[operator]
        return await serving

    return asyncio.run(main())


def test_a_signal_stops_the_server_and_the_earlier_handlers_come_back() -> None:
    heard = []
    earlier = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    try:
        report = serve_until(Server(config(hello)), lambda: signal.raise_signal(signal.SIGTERM))
        assert report.cause == "SIGTERM"
        assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
        assert heard == []
        signal.raise_signal(signal.SIGTERM)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGTERM, earlier)


def test_two_signals_in_a_loop_of_somebody_elses_cancel_and_the_third_does_not_end_the_process() -> None:
    app = Life()

    async def main() -> StopReport:
        server = Server(config(app, lifespan="on", timeout_graceful_shutdown=30))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        _, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(app.began.is_set)
        signal.raise_signal(signal.SIGQUIT)
        await asyncio.sleep(0)
        handler = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
        handler._escalation = Escalation()
        handler._escalation.press(-1.0, 2)  # half a second later
        signal.raise_signal(signal.SIGTERM)
        report = await serving
        writer.close()
        await writer.wait_closed()
        return report

    report = asyncio.run(main())
    assert (report.cause, report.cancelled, report.exit_code) == ("SIGQUIT", 1, 0)
    assert app.events == ["startup", "cancelled", "shutdown"]


def test_without_install_signal_handlers_signals_are_the_callers() -> None:
    heard = []
    earlier = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    server = Server(config(hello), install_signal_handlers=False)

    def then() -> None:
        signal.raise_signal(signal.SIGTERM)
        assert not server.should_exit
        server.drain()

    try:
        assert serve_until(server, then).cause == "api"
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert heard == [1]


def test_libraries_find_should_exit_on_the_handlers_object() -> None:
    app = Life()
    seen = []

    async def main() -> None:
        server = Server(config(app, timeout_graceful_shutdown=0.2))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        handler = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
        _, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(app.began.is_set)
        seen.append(handler.should_exit)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        seen.append(handler.should_exit)  # the grace has begun: too early to leave
        await until(lambda: handler.should_exit)
        await serving
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())
    assert seen == [False, False]


# What fails.


def test_a_taken_port_is_a_startup_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Server(config(hello, port=taken.getsockname()[1]))
        with pytest.raises(StartupError, match=f":{taken.getsockname()[1]}"):
            server.run()
    assert not server.started


class Obstructed(Life):
    """Somebody else takes the address while the application starts."""

    def __init__(self, obstruct: object) -> None:
        super().__init__()
        self._obstruct = obstruct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._obstruct()  # type: ignore[operator]
        await super().__call__(scope, receive, send)


def bound_twice() -> tuple[socket.socket, socket.socket]:
    """Two sockets on one address, as Linux allows it while neither listens."""
    sockets = [socket.socket(), socket.socket()]
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0) if sock is sockets[0] else sockets[0].getsockname())
    return sockets[0], sockets[1]


@pytest.mark.parametrize("how", ["run", "serve"])
def test_a_port_that_is_taken_while_the_application_starts_is_a_startup_error(how: str, log: Lines) -> None:
    ours, taker = bound_twice()
    with taker:
        app = Obstructed(taker.listen)
        server = Server(config(app, lifespan="on"))

        async def main() -> None:
            try:
                await server.serve([ours])
            finally:
                assert asyncio.all_tasks() == {asyncio.current_task()}, "the lifespan's has ended"

        with pytest.raises(StartupError, match=r"http://127\.0\.0\.1:\d+"):
            asyncio.run(main()) if how == "serve" else server.run([ours])
    assert app.events == ["startup", "shutdown"]
    assert log.messages(logging.WARNING) == []
    assert not [line for line in log.messages() if "running on" in line]


def test_a_unix_socket_that_is_taken_while_the_application_starts_is_a_startup_error(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    others = []
    app = Obstructed(lambda: others.extend(bind((BindSpec("unix", path=path),))))
    with pytest.raises(StartupError, match=f"unix:{path}"):
        Server(config(app, lifespan="on", uds=path)).run()
    assert app.events == ["startup", "shutdown"]
    others[0].listen(1)
    Peer(path).close()  # its file is still there
    others[0].close()


def test_a_driver_that_does_not_work_here_is_a_startup_error_after_a_shutdown(
    log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lastcall.net.reactor", None)
    app = Life()
    with pytest.raises(StartupError, match="--driver asyncio"):
        Server(config(app, lifespan="on", driver="native")).run()
    assert app.events == ["startup", "shutdown"]
    assert log.messages(logging.WARNING) == []


def test_a_signal_does_not_cut_the_shutdown_after_a_failed_start() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        taker.listen()
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        server.drain()
        await asyncio.sleep(0.05)
        events.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    ours, taker = bound_twice()
    with taker:
        server = Server(config(app, lifespan="on"))
        with pytest.raises(StartupError):
            server.run([ours])
    assert events == ["shutdown"]


def test_what_was_abandoned_is_named_once(log: Lines) -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                continue

    async def beside(scope: Scope, receive: Receive, send: Send) -> None:
        task.append(asyncio.create_task(stubborn(scope, receive, send)))
        await respond(send)

    began = threading.Event()
    task: list[asyncio.Task[None]] = []
    options: Any = {"timeout_graceful_shutdown": 0, "timeout_cancel": 0.1}
    with running(routes(stubborn=stubborn, beside=beside), **options) as server, server.peer() as a, server.peer() as b:
        assert a.get("/beside").status == 200
        b.request("/stubborn")
        assert began.wait(5)
        assert server.stop().exit_code == 5
    errors = log.messages(logging.ERROR)
    assert len(errors) == 2
    assert "GET /stubborn" in errors[0]
    assert "A task of the application does not end" in errors[1], "the application's own is named too"


def test_a_failing_startup_is_a_startup_error_and_frees_the_port(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    path = tmp_path / "socket"
    server = Server(config(app, lifespan="auto", uds=str(path)))
    with pytest.raises(StartupError, match="no database"):
        server.run()
    assert not path.exists()


def test_an_application_that_is_missing_is_a_startup_error() -> None:
    with pytest.raises(StartupError, match="no_such_module"):
        Server(config("no_such_module:app")).run()


def test_an_application_without_lifespan_is_served_unless_it_is_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await respond(send)

    for mode in ("off", "auto"):
        with running(app, lifespan=mode) as server:
            with server.peer() as peer:
                assert peer.get().status == 200
            report = server.stop()
            assert report.lifespan == ("off" if mode == "off" else "unsupported")
            assert report.exit_code == 0
    with pytest.raises(StartupError):
        Server(config(app, lifespan="on")).run()


def test_lifespan_state_reaches_requests_and_is_absent_without() -> None:
    for mode, body in (("on", b"value"), ("off", b"-")):
        with running(Life(), lifespan=mode) as server, server.peer() as peer:
            assert peer.get().body == body


def test_every_request_gets_extensions_of_its_own_with_the_notice() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["extensions"])
        scope["extensions"]["lastcall.drain"]["mine"] = True
        await respond(send, b"mine" if len(scope["extensions"]["lastcall.drain"]) == 2 else b"shared")

    with running(app) as server, server.peer() as peer:
        assert peer.get().body == peer.get().body == b"mine"
    one, other = (extensions["lastcall.drain"]["notice"] for extensions in seen)
    assert one is not other
    assert isinstance(one, lastcall.DrainNotice)
    assert one.is_set()
    assert one.stopping


def test_warnings_of_the_configuration_are_logged(log: Lines) -> None:
    with running(hello, proxy_headers=True):
        pass
    assert [line for line in log.messages(logging.WARNING) if "proxy_headers=True has no effect yet" in line]


def test_a_stop_that_nothing_holds_up_takes_no_time() -> None:
    with running(Life(), lifespan="on") as server:
        assert server.stop().seconds < 0.9, "no second is waited for, of which there are several that could be"


# Loops.


def test_a_loop_can_be_a_callable_or_a_string() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.SelectorEventLoop())
        return made[-1]

    with running(hello, loop=factory) as server:
        assert server.loop is made[0]
    assert made[0].is_closed()
    with running(hello, loop="asyncio:SelectorEventLoop") as server:
        assert type(server.loop) is asyncio.SelectorEventLoop


def test_a_loop_that_cannot_be_had_is_a_configuration_error() -> None:
    for loop, reason in (("no_such_module:factory", "no_such_module"), ("asyncio:nothing", "nothing")):
        with pytest.raises(ConfigError, match=reason) as caught:
            Server(config(hello, loop=loop)).run()
        assert (caught.value.option, caught.value.value) == ("--loop", loop)


async def no_loop() -> None:
    """Not even that."""


@pytest.mark.parametrize(
    ("loop", "reason"),
    [
        ("json:loads", "missing 1 required positional argument"),
        ("builtins:dict", "not dict"),
        (f"{__name__}:no_loop", "not coroutine"),
    ],
)
def test_a_factory_that_makes_no_loop_is_a_configuration_error(loop: str, reason: str) -> None:
    for make in (lambda: Server(config(hello, loop=loop)).run(), lambda: running(hello, loop=loop).__enter__()):
        with pytest.raises(ConfigError) as caught:
            make()
        assert (caught.value.option, caught.value.value) == ("--loop", loop)
        assert reason in caught.value.expected


@pytest.mark.parametrize("run", [lambda: Server(config(hello)).run(), lambda: lastcall.run(hello, port=0)])
def test_run_in_a_running_loop_says_what_to_do(run: object) -> None:
    async def main() -> None:
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        handler = signal.getsignal(signal.SIGTERM)
        with pytest.raises(RuntimeError, match=r"\.serve\(\)"):
            run()  # type: ignore[operator]
        gc.collect()  # a coroutine that was never awaited would warn now
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
        assert signal.getsignal(signal.SIGTERM) is handler

    asyncio.run(main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_run_leaves_the_current_event_loop_of_the_thread_alone(loop: str) -> None:
    def run() -> None:
        mine = asyncio.new_event_loop()
        asyncio.set_event_loop(mine)
        server = Server(config(hello, loop=loop))
        server.drain()
        server.run()
        found.append(asyncio.get_event_loop() is mine)
        asyncio.set_event_loop(None)
        mine.close()

    found: list[bool] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert found == [True]


def test_a_loop_factory_that_fails_is_a_config_error_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> asyncio.AbstractEventLoop:
        raise RuntimeError("no io_uring")

    with pytest.raises(ConfigError, match=r"RuntimeError: no io_uring \(.*test_server.py, line \d+\)"):
        Server(config(hello, loop=fails)).run()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "site_loops.py").write_text("import no_such_module\n")
    with pytest.raises(ConfigError, match=r"No module named 'no_such_module' \(.*site_loops.py, line 1\)"):
        Server(config(hello, loop="site_loops:make")).run()


def test_uvloop_that_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    with pytest.raises(ConfigError, match=r"pip install 'lastcall\[uvloop\]'"):
        Server(config(hello, loop="uvloop")).run()


def test_run_stops_in_order_when_an_exception_comes_out_of_its_loop() -> None:
    said: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.stop)
        await receive()
        await asyncio.sleep(0.01)
        said.append("shut down")

    with server_log() as lines:
        report = Server(lastcall.Config(app, port=0)).run()
    assert said == ["shut down"]
    assert (report.exit_code, report.cause, report.lifespan) == (1, "loop.stop()", "complete")
    assert any("stopped the event loop" in line for line in lines.messages(logging.ERROR))


def test_run_raises_the_exit_of_a_task_when_it_has_stopped_in_order() -> None:
    said: list[str] = []

    async def leave() -> None:
        raise SystemExit(7)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        task = asyncio.create_task(leave())
        await receive()
        assert task.done()
        said.append("shut down")

    with pytest.raises(SystemExit, match="7"):
        Server(lastcall.Config(app, port=0)).run()
    assert said == ["shut down"]

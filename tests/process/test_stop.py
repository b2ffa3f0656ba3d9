"""What clients and applications see of a stop, and the exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, Stopwatch, answers, open_stream, wait_for_output

SHORT = ("--timeout-graceful-shutdown", "0.3", "--timeout-cancel", "0.3")


def test_a_request_in_flight_finishes_and_says_that_the_connection_ends(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        peer.request("/slow")
        wait_for_output(server, "slow began")
        server.signal(signal.SIGTERM)
        answer = peer.answer()
        assert (answer.status, answer.body) == (200, b"slow")
        assert answer.headers["connection"] == "close"
        assert peer.ended() == "FIN"
    assert server.wait() == 0
    assert ": 1 of 1 finished; lifespan complete; exit code 0\n" in server.stderr


def test_idle_connections_that_do_not_answer_a_fin_cost_no_more_than_the_linger(start: Start) -> None:
    server = start("app", "--timeout-graceful-shutdown", "2")
    with ExitStack() as stack:
        for _ in range(5):
            assert stack.enter_context(Peer(server.addresses[0])).get().status == 200
        watch = Stopwatch()
        assert server.stop() == 0
        assert watch.seconds < 1, "the linger is a tenth of the grace; a lingering close would take a second more"


def test_new_connections_are_refused_while_the_server_drains(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        peer.request("/slow?0.6")
        wait_for_output(server, "slow began")
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        time.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            Peer(server.addresses[0])
        assert peer.answer().status == 200
    assert server.wait() == 0


def test_a_client_that_keeps_the_server_busy_does_not_keep_the_stop_order_from_it(start: Start) -> None:
    """The handler may run inside one request; the order is obeyed before the next one."""
    server = start()
    with Peer(server.addresses[0]) as peer, Peer(server.addresses[0]) as other:
        other.request("/slow?0.7")
        wait_for_output(server, "slow began")
        assert peer.get().status == 200
        server.signal(signal.SIGTERM)
        told: list[str | None] = []
        with suppress(EOFError, ConnectionError):
            while True:
                peer.request()
                told.append(peer.answer().headers.get("connection"))
        assert told in ([], ["close"], [None], [None, "close"])
        assert other.answer().status == 200
    assert server.wait() == 0


def test_a_lifespan_that_raised_while_serving_is_exit_code_4_and_serving_goes_on(start: Start) -> None:
    server = start("app_dying")
    server.wait_for("a listener of the application's died")
    with Peer(server.addresses[0]) as peer:
        assert peer.get().status == 200
    assert server.stop() == 4


@pytest.mark.parametrize(("path", "loop"), [("thread", "asyncio"), ("executor", "uvloop")])
def test_a_thread_that_does_not_end_is_named_after_atexit_and_exit_code_5(start: Start, path: str, loop: str) -> None:
    server = start("app", "--loop", loop)
    with Peer(server.addresses[0]) as peer:
        assert peer.get(f"/{path}").status == 200
    watch = Stopwatch()
    assert server.stop() == 5
    assert 0.9 < watch.seconds < 3
    assert "Abandoned, threads that do not end: " in server.stderr
    assert "the shutdown code ran\n" in server.stdout
    assert "atexit ran\n" in server.stdout


def test_a_daemon_thread_is_not_waited_for(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/daemon").status == 200
    watch = Stopwatch()
    assert server.stop() == 0
    assert watch.seconds < 1


BLOCKED = (*SHORT, "--timeout-lifespan-shutdown", "0.3")


def test_the_watchdog_also_guards_what_follows_an_unlimited_grace(start: Start) -> None:
    options = ("--timeout-graceful-shutdown", "none", "--timeout-cancel", "0.1", "--timeout-lifespan-shutdown", "0.1")
    server = start("app_blocking_shutdown", *options)
    assert server.stop() == 1
    assert "in blocking_shutdown" in server.stderr


def test_the_watchdog_works_without_stderr(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with ServerProcess(
        command=[
            "sh",
            "-c",
            'exec "$@" 2>&-',
            "sh",
            sys.executable,
            "-m",
            "lastcall",
            "behaviours:app_blocking_shutdown",
            "--uds",
            str(path),
            *BLOCKED,
        ],
        cwd=APPS,
    ) as server:
        eventually(lambda: answers(str(path)))  # there is no ready line
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        assert "shutdown began" in server.stdout


@pytest.mark.parametrize(("given", "code"), [("7", 7), ("none", 0), ("text", 1), ("-1", 255)], ids=str)
def test_a_task_that_calls_sys_exit_is_a_stop_in_good_order_with_its_exit_code(
    start: Start, given: str, code: int
) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        answer = peer.get(f"/exits_later?{given}")
        assert answer.body == b"finished all the same"
    assert server.wait() == code
    assert "the shutdown code ran" in server.stdout
    assert "Stopped (SystemExit)" in server.stderr
    assert "Traceback" not in server.stderr


@pytest.mark.parametrize(("loop", "given", "code"), [("asyncio", "7", 7), ("uvloop", "0", 5)])
def test_a_task_that_calls_sys_exit_does_not_unbind_the_end(start: Start, loop: str, given: str, code: int) -> None:
    server = start("app", "--loop", loop)
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/thread").status == 200
        watch = Stopwatch()
        assert peer.get(f"/exits_later?{given}").status == 200
    assert server.wait() == code
    assert watch.seconds < 3
    assert "never-ends" in server.stderr
    assert "atexit ran\n" in server.stdout
    assert "Traceback" not in server.stderr


def test_a_task_that_calls_sys_exit_when_it_is_cancelled_changes_nothing_but_the_log(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/exits_when_cancelled").status == 200
    assert server.stop() == 0
    assert "SystemExit: 7" in server.stderr


def test_connections_that_are_still_closing_are_counted_once_a_second(start: Start) -> None:
    server = start("app", "--timeout-graceful-shutdown", "1.5")
    with Peer(server.addresses[0], receive_buffer=4096) as peer:
        peer.request("/big?8000000")  # all of it is sent, little of it is read
        wait_for_output(server, "big has ended")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert 1 <= server.stderr.count("draining: 1 connection ") <= 2


def test_the_file_of_a_unix_socket_is_removed(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("app", "--uds", str(path))
    with Peer(str(path)) as peer:
        assert peer.get().status == 200
    assert server.addresses == [f"unix:{path}"]
    assert server.stop() == 0
    assert not path.exists()


def test_the_file_of_a_unix_socket_is_removed_by_the_third_signal_too(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("app", "--uds", str(path))
    with Peer(str(path)) as peer:
        peer.request("/block")
        wait_for_output(server, "block began")
        server.signal(signal.SIGQUIT)
        time.sleep(0.6)
        server.signal(signal.SIGTERM)
        assert server.wait() == 5
    assert not path.exists()


def test_a_request_piped_into_netcat_is_answered(start: Start) -> None:
    server = start()
    host, _, port = server.addresses[0].removeprefix("http://").partition(":")
    command = f"printf 'GET /slow?0.2 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' | nc -N {host} {port}"
    answer = subprocess.run(["sh", "-c", command], capture_output=True, timeout=10, check=True).stdout
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nslow")
    assert server.stop() == 0


@pytest.mark.parametrize("keep", [True, False], ids=["kept alive", "a connection each"])
def test_reaching_the_number_of_requests_loses_none_of_those_that_got_in(start: Start, keep: bool) -> None:
    server = start("app", "--limit-max-requests", "200", "--timeout-graceful-shutdown", "2", "--no-access-log")
    answered = [0] * 8
    lost: list[str] = []

    def ask(number: int) -> None:
        while True:
            try:
                peer = Peer(server.addresses[0])
            except (ConnectionRefusedError, ConnectionResetError):  # it never got in
                return
            with peer:
                try:
                    while True:
                        answer = peer.get("/", *(() if keep else ("Connection: close",)))
                        assert answer.status == 200
                        answered[number] += 1
                        if "connection" in answer.headers:
                            break
                except (EOFError, OSError) as error:
                    lost.append(repr(error))

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(len(answered))]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert server.wait() == 0
    assert lost == []
    assert sum(answered) >= 200


@pytest.mark.soak
@pytest.mark.timeout(60)
def test_an_endless_stream_does_not_outlive_the_default_budgets(start: Start) -> None:
    server = start("probe:app")
    with open_stream(server, "/inf"):
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        assert server.wait(40) == 0
        assert 17.9 < watch.seconds < 21
    assert "shutdown ended" in server.stdout

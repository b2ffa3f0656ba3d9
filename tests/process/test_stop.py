"""What clients and applications see of a stop, and the exit codes."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from testing.peer import Peer
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, Stopwatch, open_stream, wait_for_output

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


def test_work_after_the_response_is_waited_for(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/background").status == 200
        server.signal(signal.SIGTERM)
        assert peer.ended() == "FIN"
    assert server.wait() == 0
    assert server.stdout.index("background work is done") < server.stdout.index("the shutdown code ran")


def test_a_request_that_has_not_answered_at_the_end_of_the_grace_gets_503(start: Start) -> None:
    server = start("app", *SHORT)
    with Peer(server.addresses[0]) as peer:
        peer.request("/slow?100")
        wait_for_output(server, "slow began")
        server.signal(signal.SIGTERM)
        answer = peer.answer()
        assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (503, "1", "close")
    assert server.wait() == 0
    assert "Traceback" not in server.stderr


@pytest.mark.parametrize(("grace", "linger"), [("20", 1.0), ("3", 0.3), ("0", 0.0)])
def test_idle_connections_get_a_fin_after_the_linger_and_the_stop_is_quick(
    start: Start, grace: str, linger: float
) -> None:
    server = start("app", "--timeout-graceful-shutdown", grace)
    with ExitStack() as stack:
        used = [stack.enter_context(Peer(server.addresses[0])) for _ in range(10)]
        fresh = [stack.enter_context(Peer(server.addresses[0])) for _ in range(10)]
        for peer in used:
            assert peer.get().status == 200
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        for peer in used + fresh:
            assert peer.ended() == "FIN"
            peer.close()
        assert server.wait() == 0
        assert linger <= watch.seconds < linger + 0.5


def test_idle_connections_that_do_not_answer_a_fin_cost_no_more_than_the_linger(start: Start) -> None:
    server = start()
    with ExitStack() as stack:
        for _ in range(5):
            assert stack.enter_context(Peer(server.addresses[0])).get().status == 200
        watch = Stopwatch()
        assert server.stop() == 0
        assert watch.seconds < 1.6


def test_new_connections_are_refused_while_the_server_drains(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        peer.request("/slow?1")
        wait_for_output(server, "slow began")
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        time.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            Peer(server.addresses[0])
        assert peer.answer().status == 200
    assert server.wait() == 0


def test_a_kept_alive_client_gets_one_more_answer_at_most(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer, Peer(server.addresses[0]) as other:
        other.request("/slow?0.7")
        wait_for_output(server, "slow began")
        assert peer.get().status == 200
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        answers = 0
        try:
            while True:
                peer.request()
                answer = peer.answer()
                answers += 1
                assert answer.headers["connection"] == "close"
        except (EOFError, ConnectionError):
            pass
        assert answers <= 1
        assert other.answer().status == 200
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


def test_a_hung_shutdown_is_bounded_and_exit_code_4(start: Start) -> None:
    server = start("app_hung_shutdown", "--timeout-lifespan-shutdown", "0.5")
    watch = Stopwatch()
    assert server.stop() == 4
    assert watch.seconds < 1.5
    assert "did not complete within 0.5 s" in server.stderr


def test_a_shutdown_that_raises_is_exit_code_4(start: Start) -> None:
    server = start("app_raising_shutdown")
    assert server.stop() == 4
    assert "RuntimeError: the pool would not close" in server.stderr


def test_a_lifespan_that_raised_while_serving_is_exit_code_4_and_serving_goes_on(start: Start) -> None:
    server = start("app_dying")
    server.wait_for("a listener of the application's died")
    with Peer(server.addresses[0]) as peer:
        assert peer.get().status == 200
    assert server.stop() == 4


def test_an_application_that_will_not_be_cancelled_is_named_and_exit_code_5(start: Start) -> None:
    server = start("app", *SHORT)
    with Peer(server.addresses[0]) as peer:
        peer.request("/stubborn")
        wait_for_output(server, "stubborn began")
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        assert server.wait() == 5
        assert watch.seconds < 3
    assert "Abandoned, still running 0.3 s after being cancelled: GET /stubborn" in server.stderr
    assert server.stderr.count("ERROR: ") == 1, "named once"
    assert re.search(
        r"1 abandoned; lifespan complete; exit code 5\. Cut: GET /stubborn \(.*, abandoned\)", server.stderr
    )
    assert server.stdout.index("the shutdown code ran") < server.stdout.index("atexit ran")


@pytest.mark.parametrize("path", ["thread", "executor"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
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


def test_the_watchdog_dumps_all_stacks_and_exits_1(start: Start) -> None:
    server = start("app_blocking_shutdown", *BLOCKED)
    watch = Stopwatch()
    assert server.stop() == 1
    assert 1.5 < watch.seconds < 5  # the worst case of 1.9 s and half a second
    assert "Timeout (0:00:02" in server.stderr
    assert "in blocking_shutdown" in server.stderr


@pytest.mark.parametrize("options", [("--timeout-graceful-shutdown", "none")], ids=["none"])
def test_the_watchdog_also_guards_what_follows_an_unlimited_grace(start: Start, options: tuple[str, ...]) -> None:
    server = start("app_blocking_shutdown", *options, "--timeout-cancel", "0.3", "--timeout-lifespan-shutdown", "0.3")
    assert server.stop() == 1
    assert "in blocking_shutdown" in server.stderr


def test_the_watchdog_works_without_stderr() -> None:
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
            "--port",
            "0",
            *BLOCKED,
        ],
        cwd=APPS,
    ) as server:
        time.sleep(1.5)
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        assert "shutdown began" in server.stdout


def test_the_application_that_calls_sys_exit_ends_only_its_request(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/exits").status == 500
        assert peer.get().status == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("given", "code"), [("7", 7), ("0", 0), ("none", 0), ("text", 1), ("-1", 255), ("256", 0)], ids=str
)
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


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("given", "code"), [("7", 7), ("0", 5)])
def test_a_task_that_calls_sys_exit_does_not_unbind_the_end(start: Start, loop: str, given: str, code: int) -> None:
    server = start("app", "--loop", loop)
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/thread").status == 200
        watch = Stopwatch()
        assert peer.get(f"/exits_later?{given}").status == 200
    assert server.wait() == code
    assert watch.seconds < 3
    assert "Abandoned, threads that do not end: never-ends" in server.stderr
    assert "atexit ran\n" in server.stdout
    assert "Traceback" not in server.stderr


def test_a_task_that_calls_sys_exit_when_it_is_cancelled_changes_nothing_but_the_log(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/exits_when_cancelled").status == 200
    assert server.stop() == 0
    assert "A task of the application failed while being cancelled" in server.stderr
    assert "SystemExit: 7" in server.stderr


def test_connections_that_are_still_closing_are_counted_once_a_second(start: Start) -> None:
    server = start("app", "--timeout-graceful-shutdown", "2.5")
    with Peer(server.addresses[0], receive_buffer=4096) as peer:
        peer.request("/big?8000000")  # all of it is sent, little of it is read
        wait_for_output(server, "big has ended")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert 1 <= server.stderr.count("draining: 1 connection is still closing\n") <= 2


@pytest.mark.parametrize("option", ["--uds", "--bind"])
def test_the_file_of_a_unix_socket_is_removed(start: Start, tmp_path: Path, option: str) -> None:
    path = tmp_path / "socket"
    server = start("app", option, f"unix:{path}" if option == "--bind" else str(path))
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


def test_reaching_the_number_of_requests_is_a_stop_with_exit_code_0(start: Start) -> None:
    server = start("app", "--limit-max-requests", "3")
    with Peer(server.addresses[0]) as peer:
        assert "connection" not in peer.get().headers
        assert peer.get().status == 200
        assert peer.get().status == 200
        peer.ended()
    assert server.wait() == 0
    assert "Stopped (max-requests)" in server.stderr
    assert "the shutdown code ran" in server.stdout


def test_no_cancel_that_was_ordered_leaves_a_traceback(start: Start) -> None:
    server = start("app", *SHORT)
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(open_stream(server))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "Traceback" not in server.stderr
    assert "0 of 5 finished, 5 disconnected; " in server.stderr


def test_the_drain_says_what_it_waits_for(start: Start) -> None:
    server = start("app", "--timeout-graceful-shutdown", "1.5")
    with open_stream(server):
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "Stopping (SIGTERM): 1 request in flight, done within 9.5 s." in server.stderr
    assert "draining: 1 left, " in server.stderr
    assert "GET /stream" in server.stderr


def test_a_request_piped_into_netcat_is_answered(start: Start) -> None:
    server = start()
    host, _, port = server.addresses[0].removeprefix("http://").partition(":")
    command = f"printf 'GET /slow?0.2 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' | nc -N {host} {port}"
    answer = subprocess.run(["sh", "-c", command], capture_output=True, timeout=10, check=True).stdout
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nslow")
    assert server.stop() == 0


def test_no_grace_at_all_still_reads_what_has_arrived(start: Start) -> None:
    server = start("app", "--timeout-graceful-shutdown", "0")
    with Peer(server.addresses[0]) as peer:
        assert peer.get().status == 200
        server.signal(signal.SIGTERM)
        assert peer.ended() == "FIN"
    assert server.wait() == 0


def test_a_connection_that_holds_half_a_head_is_closed_by_the_end_of_the_grace(start: Start) -> None:
    server = start("app", *SHORT)
    with Peer(server.addresses[0]) as peer:
        peer.send(b"GET / HTTP/1.1\r\nHos")
        assert peer.silent(0.1)
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert watch.seconds < 1.5
        with pytest.raises((EOFError, socket.error)):
            peer.answer()


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

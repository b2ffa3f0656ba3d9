"""The last second: threads, ``atexit``, the interpreter's own end. Bounded, and never that of a signal."""

from __future__ import annotations

import signal
import socket
import sys
import time
from textwrap import dedent

import pytest

from testing.peer import Peer
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, Stopwatch, wait_for_output

NOT_TOGETHER = 0.6  # seconds: signals that are closer than 0.5 s are one
SHORT = (
    *("--timeout-graceful-shutdown", "0.3", "--timeout-cancel", "0.3", "--timeout-lifespan-shutdown", "0.3"),
    *("--timeout-interrupt", "0.3"),
)


def test_the_second_signal_while_threads_are_waited_for_has_no_effect(start: Start) -> None:
    server = start()
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/thread").status == 200
    watch = Stopwatch()
    server.signal(signal.SIGINT)
    server.wait_for("Stopped ")
    time.sleep(NOT_TOGETHER)
    server.signal(signal.SIGINT)
    assert server.wait() == 5
    assert watch.seconds < 2
    assert "never-ends" in server.stderr
    assert "atexit ran\n" in server.stdout
    assert "Traceback" not in server.stderr


def test_the_second_signal_in_atexit_has_no_effect(start: Start) -> None:
    server = start("slow_end:app", env={"ATEXIT": "1.5"})
    server.signal(signal.SIGINT)
    wait_for_output(server, "atexit began")
    time.sleep(NOT_TOGETHER)
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    assert "atexit ended" in server.stdout
    assert "Traceback" not in server.stderr


def test_the_third_signal_in_atexit_ends_the_process(start: Start) -> None:
    server = start("slow_end:app", env={"ATEXIT": "1000"})
    for _ in range(3):
        server.signal(signal.SIGINT)
        wait_for_output(server, "atexit began")
        time.sleep(NOT_TOGETHER)
    assert server.wait() == 5
    assert "third stop signal" in server.stderr


def test_a_signal_while_the_interpreter_takes_itself_apart_has_no_effect(start: Start) -> None:
    server = start("slow_end:app", env={"DESTRUCTOR": "1"})
    server.signal(signal.SIGINT)
    wait_for_output(server, "destructor began")
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    assert "destructor ended" in server.stdout


def test_the_watchdog_sees_to_the_very_end(start: Start) -> None:
    server = start("slow_end:app", *SHORT, env={"DESTRUCTOR": "1000"})
    watch = Stopwatch()
    assert server.stop() == 1
    assert 1.5 < watch.seconds < 4  # the worst case of 1.9 s and half a second
    assert "destructor began" in server.stdout
    assert "the stop took longer than it can" in server.stderr


def test_a_failed_start_is_told_and_ends_although_a_thread_does_not(start: Start) -> None:
    server = start("slow_end:app", ready=False, env={"FAIL": "1"})
    assert server.wait() == 5
    assert "no database" in server.stderr
    assert "never-ends" in server.stderr
    assert "Traceback" not in server.stderr


def test_the_watchdog_guards_the_end_of_a_failed_start_too(start: Start) -> None:
    server = start("slow_end:app", *SHORT, ready=False, env={"FAIL": "1", "ATEXIT": "1000"})
    assert server.wait() == 1
    assert "atexit began" in server.stdout


def test_run_gives_everything_back_that_it_took() -> None:
    script = """
        import asyncio, gc, os, signal, sys, time, threading
        import lastcall

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
                await receive()
                print("frozen", gc.get_freeze_count() > 0)
                await send({"type": "lifespan.shutdown.complete"})

        mine = asyncio.new_event_loop()
        asyncio.set_event_loop(mine)
        lastcall.run(app, port=0, timeout_graceful_shutdown=0.1, timeout_cancel=0.1, timeout_lifespan_shutdown=0.1)
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, gc.get_freeze_count())
        print(asyncio.get_event_loop() is mine)
        gc.freeze()
        before = gc.get_freeze_count()
        lastcall.run(app, port=0, timeout_graceful_shutdown=0.1, timeout_cancel=0.1, timeout_lifespan_shutdown=0.1)
        print(gc.get_freeze_count() >= before)
        time.sleep(2)  # longer than the watchdog would have waited
        mine.close()
        print("the program goes on")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    """
    with ServerProcess(command=[sys.executable, "-c", dedent(script)], cwd=APPS) as server:
        assert server.wait() == -signal.SIGTERM
    assert server.stdout.splitlines() == [
        "frozen True",
        "True 0",
        "True",
        "frozen True",
        "True",
        "the program goes on",
    ]


def test_a_thread_that_is_older_than_the_server_is_not_waited_for() -> None:
    script = """
        import os, signal, threading
        import lastcall

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
                await receive()

        over = threading.Event()
        older = threading.Thread(target=over.wait, name="older")
        older.start()
        lastcall.run(app, port=0)
        print("run() returned", older.is_alive())
        over.set()
    """
    with ServerProcess(command=[sys.executable, "-c", dedent(script)], cwd=APPS) as server:
        assert server.wait() == 0
    assert server.stdout == "run() returned True\n"
    assert "Abandoned" not in server.stderr


@pytest.mark.parametrize(("options", "frozen"), [((), True), (("--no-gc-freeze",), False)], ids=["default", "off"])
def test_what_start_up_made_is_frozen_unless_told_otherwise(
    start: Start, options: tuple[str, ...], frozen: bool
) -> None:
    server = start("app", *options)
    with Peer(server.addresses[0]) as peer:
        assert (int(peer.get("/frozen").body) > 0) is frozen
    assert server.stop() == 0


def test_what_was_frozen_is_collected_at_the_end(start: Start) -> None:
    server = start("lean_start:app")
    assert "the cycle was collected" not in server.stdout
    assert server.stop() == 0
    assert "the cycle was collected\n" in server.stdout


def test_by_default_connections_are_limited_to_the_descriptors_without_64() -> None:
    command = ["sh", "-c", 'ulimit -n 70 && exec "$@"', "sh", sys.executable, "-m", "lastcall"]
    command += ["behaviours:app", "--port", "0"]
    with ServerProcess(command=command, cwd=APPS) as server:
        server.wait_ready()
        peers = [Peer(server.addresses[0]) for _ in range(7)]
        for peer in peers:
            peer.request()
        for peer in peers[:6]:
            assert peer.answer().status == 200
        assert peers[6].silent(0.3)
        peers[0].close()
        assert peers[6].answer().status == 200
        for peer in peers:
            peer.close()
        assert server.stop() == 0


def test_what_the_application_starts_does_not_inherit_listeners() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        number = str(given.fileno())
        with ServerProcess(["--fd", number], "behaviours:app", cwd=APPS, pass_fds=[given.fileno()]) as server:
            server.wait_ready()
            with open(f"/proc/{server.pid}/fdinfo/{number}") as info:
                flags = next(line.split()[1] for line in info if line.startswith("flags:"))
            assert int(flags, 8) & 0o2000000, "close-on-exec"
            assert server.stop() == 0


def test_a_second_run_in_the_process_is_refused_and_leaves_the_first_one_as_it_is() -> None:
    script = """
        import os, signal, sys, threading
        import lastcall
        from lastcall.server import watchdog

        async def app(scope, receive, send):
            if scope["type"] != "lifespan":
                return
            await receive()
            await send({"type": "lifespan.startup.complete"})
            threading.Thread(target=second).start()
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

        def second():
            try:
                lastcall.run(app, port=0)
            except RuntimeError as error:
                print(error)
            print(watchdog.is_running())
            os.kill(os.getpid(), signal.SIGTERM)

        lastcall.run(app, port=0)
        print(watchdog.is_running())
    """
    with ServerProcess(command=[sys.executable, "-c", dedent(script)]) as server:
        assert server.wait() == 0
    refused, during, after = server.stdout.splitlines()
    assert "serves in this process already" in refused
    assert (during, after) == ("True", "False")
    assert "Stopped (SIGTERM)" in server.stderr

"""Signals that Python does not hear: one comes just before a call that blocks, or a C call has the GIL."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from testing.peer import Peer, eventually
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, Stopwatch, answers, wait_for_output
from tests.process.witness import Client, report

NOT_TOGETHER = 0.6  # seconds: signals that are closer than 0.5 s are one
STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
SHORT = (
    *("--timeout-graceful-shutdown", "0.3", "--timeout-cancel", "0.2", "--timeout-lifespan-shutdown", "0.2"),
    *("--timeout-interrupt", "0.3"),
)
LONG = 12.0  # seconds: much more than the worst case of 1.7 s, much less than the C call takes


# -- the race between the last look and the call that blocks --------------------------------------------------------


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that raises a signal inside a call that blocks, just before it does."""
    library = tmp_path_factory.mktemp("race") / "race.so"
    source = Path(__file__).with_name("race.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def racing(library: Path, number: signal.Signals, when: Path | str, where: str) -> dict[str, str]:
    """The environment in which the first ``where`` after ``when`` has appeared gets the signal."""
    return {"LD_PRELOAD": str(library), "RACE_SIGNAL": str(int(number)), "RACE_WHEN": str(when), "RACE_IN": where}


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: str(number.name))
@pytest.mark.parametrize("loop", ["auto", "asyncio", "uvloop"])
def test_a_signal_just_before_an_idle_server_goes_to_sleep_is_heard(
    start: Start, race: Path, tmp_path: Path, loop: str, number: signal.Signals
) -> None:
    server = start("unheard:app", "--loop", loop, env=racing(race, number, tmp_path / "now", "epoll"))
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/idle").status == 200  # half a second later it goes to sleep once more
    assert server.wait() == 0
    assert f"Stopped ({number.name})" in server.stderr


@pytest.mark.parametrize("loop", ["auto", "uvloop"])
def test_a_signal_just_before_the_loop_sleeps_in_a_start_up_is_heard(start: Start, race: Path, loop: str) -> None:
    server = start("unheard:sleepy", "--loop", loop, ready=False, env=racing(race, signal.SIGTERM, "/", "epoll"))
    assert server.wait() == 0
    assert "Stopped (SIGTERM) before the application had started" in server.stderr


def test_a_signal_just_before_an_import_blocks_is_heard(start: Start, race: Path) -> None:
    server = start("hung_import:app", ready=False, env=racing(race, signal.SIGTERM, "/", "sleep"))
    assert server.wait() == 0
    assert "import began" in server.stdout
    assert "Stopped (SIGTERM)" in server.stderr


def test_a_signal_just_before_an_embedding_loop_sleeps_is_heard(race: Path) -> None:
    script = """
        import asyncio, lastcall
        from unheard import app

        async def main():
            report = await lastcall.Server(lastcall.Config(app, port=0)).serve()
            print(report.cause)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", dedent(script)]
    with ServerProcess(command=command, cwd=APPS, env=racing(race, signal.SIGTERM, "/", "epoll")) as server:
        assert server.wait() == 0
    assert server.stdout == "SIGTERM\n"


# -- a C call that holds the GIL --------------------------------------------------------------------------------------


def holding(start: Start, where: str, *options: str) -> ServerProcess:
    """A server in which a C call has the GIL for tens of seconds."""
    if where in ("import", "startup"):
        server = start("unheard:app", *options, ready=False, env={"HOLD": where})
    else:
        server = start("unheard:app", *options)
        Client(server, f"/{where}")
    wait_for_output(server, "holding")
    return server


@pytest.mark.parametrize("loop", ["auto", "uvloop"])
@pytest.mark.parametrize("where", ["hold", "thread", "import", "startup"])
def test_the_deadline_holds_although_a_c_call_has_the_gil(start: Start, where: str, loop: str) -> None:
    server = holding(start, where, "--loop", loop, *SHORT)
    watch = Stopwatch()
    server.signal(signal.SIGTERM)
    assert server.wait(LONG) == (5 if where == "startup" else 1)
    assert watch.seconds > 1
    assert "the stop took longer than it can" in server.stderr
    assert "in hold\n" in server.stderr, "the stacks"


@pytest.mark.parametrize("where", ["import", "startup"])
def test_the_second_signal_in_the_start_acts_although_a_c_call_has_the_gil(start: Start, where: str) -> None:
    server = holding(start, where, "--timeout-cancel", "60")
    for _ in range(2):
        assert server.returncode is None
        server.signal(signal.SIGTERM)
        time.sleep(NOT_TOGETHER)
    assert server.wait(LONG) == 5
    assert "second stop signal in the start" in server.stderr
    assert "in hold\n" in server.stderr, "the stacks"


@pytest.mark.parametrize("where", ["hold", "thread"])
def test_the_third_signal_acts_although_a_c_call_has_the_gil(start: Start, where: str) -> None:
    server = holding(start, where, "--timeout-cancel", "60")
    for _ in range(3):
        assert server.returncode is None
        server.signal(signal.SIGTERM)
        time.sleep(NOT_TOGETHER)
    assert server.wait(LONG) == 5
    assert "third stop signal" in server.stderr
    assert "in hold\n" in server.stderr, "the stacks"


def test_two_signals_end_an_import_that_has_the_gil(start: Start) -> None:
    server = holding(start, "import", "--timeout-cancel", "60")
    server.signal(signal.SIGINT)
    time.sleep(NOT_TOGETHER)
    assert server.returncode is None
    server.signal(signal.SIGINT)
    assert server.wait(LONG) == 5


def test_stacks_that_change_while_they_are_read_do_not_change_the_end(start: Start, tmp_path: Path) -> None:
    """Reading them may crash: that is tried several times over here, and made certain below."""
    files = [tmp_path / f"{number}.json" for number in range(5)]
    for file in files:
        server = start("unheard:app", "--drain-report", str(file))
        client = Client(server, "/compute")
        wait_for_output(server, "computing")
        server.signal(signal.SIGQUIT)  # the first and the second
        time.sleep(NOT_TOGETHER)
        server.signal(signal.SIGTERM)
        assert server.wait(LONG) == 5
        assert report(file)["outcome"] == "third signal"
        client.close()


@pytest.mark.parametrize("code", [1, 5], ids=["watchdog", "third signal"])
def test_a_crash_while_the_stacks_are_read_does_not_change_the_end(
    start: Start, race: Path, tmp_path: Path, code: int
) -> None:
    file = tmp_path / "report.json"
    environment = {"LD_PRELOAD": str(race), "RACE_IN": "stacks"}
    budgets = SHORT if code == 1 else ("--timeout-cancel", "60")
    server = start("unheard:app", *budgets, "--drain-report", str(file), env=environment)
    client = Client(server, "/compute")
    wait_for_output(server, "computing")
    server.signal(signal.SIGTERM if code == 1 else signal.SIGQUIT)
    if code == 5:
        time.sleep(NOT_TOGETHER)
        server.signal(signal.SIGTERM)
    assert server.wait(LONG) == code
    assert report(file)["outcome"] == ("watchdog" if code == 1 else "third signal")
    client.close()


def test_signals_that_are_close_are_one_also_where_nobody_hears(start: Start) -> None:
    server = holding(start, "hold", "--timeout-graceful-shutdown", "60")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        server.signal(number)
    time.sleep(NOT_TOGETHER)
    server.signal(signal.SIGTERM)
    time.sleep(NOT_TOGETHER)
    assert server.returncode is None, "that was the second"
    server.signal(signal.SIGTERM)
    assert server.wait(LONG) == 5


@pytest.mark.parametrize("second", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGQUIT]], ids=["TERM TERM", "QUIT"])
def test_without_a_limit_of_the_grace_the_second_signal_sets_the_deadline(
    start: Start, second: list[signal.Signals]
) -> None:
    server = holding(start, "hold", *SHORT, "--timeout-graceful-shutdown", "none")
    for number in second:
        assert server.returncode is None
        server.signal(number)
        time.sleep(NOT_TOGETHER)
    assert server.wait(LONG) == 1


@pytest.mark.parametrize("code", [1, 5], ids=["watchdog", "third signal"])
def test_unix_sockets_are_removed_but_for_one_that_took_their_place(start: Start, tmp_path: Path, code: int) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    budgets = SHORT if code == 1 else ("--timeout-cancel", "60")
    server = start("unheard:app", "--bind", f"unix:{ours}", "--bind", f"unix:{other}", *budgets)
    other.unlink()
    other.write_text("somebody else's")
    client = Client(server, "/hold")
    wait_for_output(server, "holding")
    server.signal(signal.SIGTERM if code == 1 else signal.SIGQUIT)
    if code == 5:
        time.sleep(NOT_TOGETHER)
        server.signal(signal.SIGTERM)
    assert server.wait(LONG) == code
    assert not ours.exists()
    assert other.exists()
    client.close()


def test_a_standard_error_that_nobody_reads_does_not_hold_the_end(tmp_path: Path) -> None:
    file, path = tmp_path / "report.json", tmp_path / "socket"
    command = [sys.executable, "-m", "lastcall", "unheard:app", "--uds", str(path), "--drain-report", str(file), *SHORT]
    with subprocess.Popen(command, cwd=APPS, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        try:
            eventually(lambda: answers(str(path)))
            with Peer(str(path)) as peer:
                peer.request("/full")
                assert server.stdout is not None
                for line in server.stdout:
                    if line == b"holding\n":
                        break
                server.send_signal(signal.SIGTERM)
                assert server.wait(LONG) == 1
        finally:
            server.kill()
    assert report(file)["outcome"] == "watchdog"


def test_a_handler_that_the_application_installs_later_wins(start: Start) -> None:
    server = start("unheard:app", *SHORT, env={"HANDLER": "SIGTERM"})
    server.signal(signal.SIGTERM)
    wait_for_output(server, "my own handler")
    time.sleep(NOT_TOGETHER)
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    assert "Stopped (SIGINT)" in server.stderr, "the first that was heard"


def test_an_application_that_wants_the_signal_of_the_stacks_has_it_and_the_end_comes_all_the_same(start: Start) -> None:
    server = start("unheard:app", *SHORT, env={"HANDLER": "SIGRTMAX", "BELOW": "3"})
    server.signal(signal.SIGRTMAX - 3)
    wait_for_output(server, "my own handler")
    client = Client(server, "/hold")
    wait_for_output(server, "holding")
    server.signal(signal.SIGTERM)
    assert server.wait(LONG) == 1
    assert "the stop took longer than it can" in server.stderr
    assert "in hold" not in server.stderr
    client.close()

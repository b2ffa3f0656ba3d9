"""Starts: what fails says why, and a start that hangs can be interrupted."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testing.peer import Peer
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, Stopwatch, wait_for_output
from tests.process.witness import report


def test_the_ready_line_gives_the_real_port(start: Start) -> None:
    server = start("app", "--port", "0")
    assert not server.addresses[0].endswith(":0")
    assert f"INFO:     lastcall running on {server.addresses[0]} (Press CTRL+C to quit)\n" in server.stderr
    with Peer(server.addresses[0]) as peer:
        assert peer.get().status == 200
    assert server.stop() == 0


def test_a_start_imports_nothing_slow_that_it_does_not_need(start: Start) -> None:
    server = start("lean_start:app")
    assert server.stop() == 0
    assert "slow modules: []\n" in server.stdout


def test_a_failed_startup_is_exit_code_3_with_the_applications_words(start: Start) -> None:
    server = start("app_failing_startup", ready=False)
    assert server.wait() == 3
    assert "no database" in server.stderr
    assert "Traceback" not in server.stderr
    assert server.addresses == []


def test_a_taken_port_is_exit_code_3_before_the_import(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start("hung_import:app", "--port", str(port), ready=False)
        assert server.wait() == 3
    assert f"127.0.0.1:{port}" in server.stderr
    assert "import began" not in server.stdout


def test_nobody_is_let_in_before_the_startup_is_complete(start: Start) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start("app_hung_startup", "--port", str(port), ready=False)
    wait_for_output(server, "startup began")
    with pytest.raises(ConnectionRefusedError):
        Peer(("127.0.0.1", port)).close()
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("app", "word", "number"),
    [
        ("app_hung_startup", "startup", signal.SIGTERM),
        ("hung_import:app", "import", signal.SIGTERM),
        ("hung_import:app", "import", signal.SIGINT),
    ],
)
def test_a_signal_interrupts_a_hung_start_with_exit_code_0(
    start: Start, app: str, word: str, number: signal.Signals
) -> None:
    server = start(app, ready=False)
    wait_for_output(server, f"{word} began")
    watch = Stopwatch()
    server.signal(number)
    assert server.wait() == 0
    assert watch.seconds < 2
    assert "Traceback" not in server.stderr
    assert f"Stopped ({number.name})" in server.stderr
    assert ("startup was interrupted" in server.stdout) is (word == "startup"), "the lifespan's task is cancelled"
    assert "shutdown" not in server.stdout


@pytest.mark.parametrize("instead", ["RuntimeError", "ImportError", "SystemExit", "nothing"])
def test_an_import_that_makes_something_else_of_the_interruption_ends_with_exit_code_0(
    start: Start, tmp_path: Path, instead: str
) -> None:
    file = tmp_path / "report.json"
    options = ("--drain-report", str(file))
    server = start("interrupted_import:app", *options, ready=False, env={"INSTEAD": instead})
    wait_for_output(server, "import began")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "Stopped (SIGTERM) before the application had started" in server.stderr
    assert "Error" not in server.stderr
    assert (report(file)["cause"], report(file)["exit_code"]) == ("SIGTERM", 0)


@pytest.mark.parametrize("loop", ["auto", "uvloop"])
@pytest.mark.parametrize("swallows", [{}, {"SWALLOWS": "1"}], ids=["", "swallows"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: str(number.name))
def test_a_start_that_blocks_before_the_import_ends_as_any_other(
    start: Start, tmp_path: Path, number: signal.Signals, swallows: dict[str, str], loop: str
) -> None:
    file = tmp_path / "report.json"
    environment = {"PYTHONPATH": str(Path(__file__).with_name("slow_resolver")), **swallows}
    server = start("app", "--drain-report", str(file), "--loop", loop, ready=False, env=environment)
    wait_for_output(server, "resolving")
    server.signal(number)
    assert server.wait() == 0
    assert f"Stopped ({number.name}) before the application had started" in server.stderr
    assert "Error" not in server.stderr
    assert (report(file)["cause"], report(file)["exit_code"]) == (number.name, 0)


@pytest.mark.parametrize("instead", ["raise", "return None"])
def test_an_event_loop_that_takes_long_to_make_is_interrupted_too(start: Start, tmp_path: Path, instead: str) -> None:
    (tmp_path / "site_loop.py").write_text(
        "import os, time\n\n"
        "def loop():\n"
        "    try:\n"
        "        os.write(1, b'making it\\n')\n"
        "        time.sleep(1000)\n"
        "    except KeyboardInterrupt:\n"
        f"        {instead}\n"
    )
    file = tmp_path / "report.json"
    options = ("--loop", "site_loop:loop", "--app-dir", str(tmp_path), "--drain-report", str(file))
    server = start("site_loop:app", *options, ready=False)
    wait_for_output(server, "making it")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "Stopped (SIGTERM) before the application had started" in server.stderr
    assert "Error" not in server.stderr
    assert (report(file)["cause"], report(file)["exit_code"]) == ("SIGTERM", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT], ids=lambda number: str(number.name))
@pytest.mark.parametrize(
    "module",
    [
        *("signal", "enum", "click", "faulthandler"),
        *("lastcall.cli.run", "lastcall.config", "lastcall.server", "lastcall.server.process"),
    ],
)
def test_a_signal_before_the_server_has_handlers_is_exit_code_0(module: str, number: signal.Signals) -> None:
    environment = {
        "PYTHONPATH": str(Path(__file__).with_name("interrupting")),
        "INTERRUPT_AT": module,
        "INTERRUPT": str(int(number)),
    }
    with ServerProcess((), "behaviours:app", environment, APPS) as server:
        assert server.wait() == 0
        assert server.stderr == ""


@pytest.mark.parametrize("loop", ["auto", "uvloop"])
@pytest.mark.parametrize(
    "app", ["app_blocking_startup", "app_blocking_startup_that_tells", "app_task_that_blocks_the_startup"]
)
def test_one_signal_ends_a_start_up_that_blocks_the_loop(start: Start, app: str, loop: str) -> None:
    server = start(app, "--loop", loop, ready=False)
    wait_for_output(server, "startup began")
    watch = Stopwatch()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert watch.seconds > 0.4, "a start-up that does not block would have heard of it by then"
    assert "Stopped (SIGTERM) before the application had started" in server.stderr
    assert "Traceback" not in server.stderr
    assert "ERROR" not in server.stderr
    assert ("startup was interrupted" in server.stdout) is (app == "app_blocking_startup")


@pytest.mark.parametrize("default", [{}, {"DEFAULT": "1"}], ids=["", "default"])
@pytest.mark.parametrize("block", [{}, {"BLOCK": "1"}], ids=["", "blocks"])
@pytest.mark.parametrize("loop", ["auto", "uvloop"])
def test_one_signal_is_one_in_the_start_where_the_applications_handler_calls_ours(
    start: Start, loop: str, block: dict[str, str], default: dict[str, str]
) -> None:
    server = start("chains:app", "--loop", loop, ready=False, env={"HANDLERS": "SIGTERM", **block, **default})
    wait_for_output(server, "startup began")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert server.stdout.count("my own handler") == 1, "nobody has sent a second one"
    assert "Stopped (SIGTERM) before the application had started" in server.stderr


def test_a_start_up_that_nothing_can_interrupt_ends_by_its_deadline(start: Start) -> None:
    environment = {"HANDLERS": "SIGTERM SIGINT SIGQUIT", "BLOCK": "1"}
    server = start("chains:app", "--timeout-cancel", "0.2", ready=False, env=environment)
    wait_for_output(server, "startup began")
    server.signal(signal.SIGTERM)
    assert server.wait() == 5
    assert server.stdout.count("my own handler") == 1
    assert "the stop took longer than it can" in server.stderr


@pytest.mark.parametrize("loop", ["auto", "uvloop"])
@pytest.mark.parametrize(
    "app",
    [
        "app_shortly_blocking_startup",
        "app_startup_that_swallows_and_completes",
        "app_blocking_startup_that_swallows_and_completes",
    ],
)
def test_an_application_that_completes_its_start_up_after_the_signal_is_shut_down(
    start: Start, tmp_path: Path, app: str, loop: str
) -> None:
    file = tmp_path / "report.json"
    server = start(app, "--loop", loop, "--drain-report", str(file), ready=False)
    wait_for_output(server, "startup began")
    if app != "app_shortly_blocking_startup":  # which raises the signal itself
        server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "startup is complete\nshutdown\nthe shutdown code ran\n" in server.stdout
    assert server.addresses == [], "nobody was let in"
    assert "Traceback" not in server.stderr
    found = report(file)
    assert (found["cause"], found["lifespan"], found["exit_code"]) == ("SIGTERM", "complete", 0)
    assert list(found["phases"]) == ["CLOSING"]
    assert found["seconds"] == found["phases"]["CLOSING"] >= 0.1


def test_a_second_signal_does_not_hold_the_shutdown_of_who_has_completed_its_start_up(start: Start) -> None:
    """It has no effect in CLOSING, and the loop turns on: the time for lifespan.shutdown runs."""
    server = start("app_that_completes_late_and_ticks", ready=False)
    wait_for_output(server, "startup began")
    server.signal(signal.SIGTERM)
    wait_for_output(server, "shutdown began")
    time.sleep(0.6)  # two signals that come sooner count as one
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "turned" in server.stdout


def test_a_start_up_that_blocks_on_is_abandoned_with_its_stack(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    server = start("app_startup_that_swallows", "--timeout-cancel", "0.2", "--drain-report", str(file), ready=False)
    wait_for_output(server, "startup began")
    watch = Stopwatch()
    server.signal(signal.SIGTERM)
    wait_for_output(server, "startup goes on")
    assert server.wait() == 5
    assert 0.2 + 1 < watch.seconds < 6
    assert server.stdout.count("startup goes on") == 1, "interrupted once: it may be cleaning up"
    assert "in startup_that_swallows" in server.stderr
    assert (report(file)["outcome"], report(file)["exit_code"]) == ("watchdog", 5)


def test_the_second_signal_during_the_start_is_exit_code_5(start: Start) -> None:
    server = start("app_stubborn_startup", "--timeout-cancel", "30", ready=False)
    wait_for_output(server, "startup began")
    server.signal(signal.SIGTERM)
    wait_for_output(server, "startup goes on")
    time.sleep(0.6)
    watch = Stopwatch()
    server.signal(signal.SIGTERM)
    assert server.wait() == 5
    assert watch.seconds < 1


def test_sigquit_during_the_start_is_the_second_signal_too(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    server = start("app_hung_startup", "--drain-report", str(file), ready=False)
    wait_for_output(server, "startup began")
    server.signal(signal.SIGQUIT)
    assert server.wait() == 5
    assert "second stop signal in the start" in server.stderr
    assert (report(file)["outcome"], report(file)["exit_code"]) == ("second signal", 5)


def test_a_startup_that_will_not_be_cancelled_is_given_up(start: Start) -> None:
    server = start("app_stubborn_startup", "--timeout-cancel", "0.2", ready=False)
    wait_for_output(server, "startup began")
    watch = Stopwatch()
    assert server.stop() == 5
    assert watch.seconds < 3
    assert server.stderr.count("lastcall-lifespan") == 1, "named once"


@pytest.mark.parametrize(
    "arguments",
    [
        ["behaviours:app", "--port", "http"],
        ["behaviours:app", "--loop", "json:loads"],
    ],
    ids=["before the start", "in the start"],
)
def test_a_mistake_on_the_command_line_is_exit_code_2(arguments: list[str]) -> None:
    with ServerProcess(arguments, cwd=APPS) as server:
        assert server.wait() == 2
    assert "Error: " in server.stderr
    assert "Traceback" not in server.stderr


def test_a_program_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    program = tmp_path / "site_main.py"
    program.write_text("import lastcall\n\nasync def app(*_): ...\n\nlastcall.run('site_main:app', port=0)\n")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("Error: 'site_main' runs a server itself")
    assert "Traceback" not in done.stderr


def test_what_options_name_comes_from_the_applications_directory(start: Start, tmp_path: Path) -> None:
    (tmp_path / "site_parts.py").write_text(
        "import asyncio, logging\n\n"
        "class Formatter(logging.Formatter): ...\n\n"
        "def loop():\n    return asyncio.new_event_loop()\n\n"
        "async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n"
    )
    formatter = {"()": "site_parts.Formatter", "format": "mine: %(message)s"}
    handler = {"class": "logging.StreamHandler", "formatter": "mine"}
    loggers = {"lastcall": {"handlers": ["mine"], "level": "INFO"}}
    logging = {"version": 1, "formatters": {"mine": formatter}, "handlers": {"mine": handler}, "loggers": loggers}
    (tmp_path / "log.json").write_text(json.dumps(logging))
    options = ["--loop", "site_parts:loop", "--log-config", str(tmp_path / "log.json"), "--app-dir", str(tmp_path)]
    server = start("site_parts:app", *options)
    assert server.stop() == 0
    assert "mine: Stopped" in server.stderr


@pytest.mark.parametrize(("driver", "loop"), [("native", "asyncio"), ("asyncio", "uvloop")])
def test_every_driver_on_every_loop_starts_serves_and_stops(start: Start, driver: str, loop: str) -> None:
    server = start("app", "--driver", driver, "--loop", loop)
    with Peer(server.addresses[0]) as peer:
        assert peer.get().body == b"ok"
    assert server.stop() == 0
    assert server.stdout.count('"GET / HTTP/1.1" 200') == 1
    assert "the shutdown code ran" in server.stdout

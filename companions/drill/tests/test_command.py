"""``lastcall drill`` as a command: its options, its reports, its exit codes, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from companions.drill.tests.judging import TINY
from lastcall_drill.cli.main import drill_group
from lastcall_drill.process import MARK
from lastcall_drill.verdicts import Verdict, from_json
from testing.patience import Patience

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]
SECONDS = 20.0
GOOD = f"{sys.executable} {TINY} {{app}} --port {{port}} --grace {{grace}}"


def drill(*words: str) -> Result:
    return CliRunner().invoke(drill_group, words, prog_name="lastcall drill")


def test_the_list_has_every_scenario_under_its_heading() -> None:
    result = drill("--list")
    assert result.exit_code == 0
    assert "Streams\n" in result.stdout
    assert "  stream-endless  " in result.stdout
    assert "[needs lifespan, workers]" in result.stdout
    assert "stream-endless" not in drill("--list", "--scenario", "exit-*").stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--scenario", "nonsense-*"], "--scenario nonsense-*: no scenario's id matches it"),
        (["--server", "unheard-of"], "--server unheard-of: the drill knows how to start"),
        (["--server", "x {app}"], "the command needs {port}"),
        (["--json", "/no/such/directory/x"], "--json /no/such/directory/x: there is no such directory"),
        (["--scale", "0"], "0.0 is not in the range"),
        (["--jobs", "0"], "0 is not in the range"),
        (["--app", "a:b"], "--app needs --route"),
        (["--route", "/a"], "--route needs --app"),
        (["--grace", "3"], "--grace needs --app"),
        (["--app-dir", "."], "--app-dir needs --app"),
        (["--app", "a:b", "--route", "/a", "--scenario", "exit-*"], "--scenario: with --app it means nothing"),
        (["--app", "a:b", "--route", "/a", "--jobs", "4"], "--jobs: with --app it means nothing"),
        (["exit-idle"], "No such command 'exit-idle'. Did you mean: lastcall drill --scenario exit-idle"),
        (["exit-*"], "Did you mean: lastcall drill --scenario exit-*"),
        (["uvicorn==0.22.0"], "Did you mean: lastcall drill --server uvicorn==0.22.0"),
        (["nonsense"], "No such command 'nonsense'."),
        (["--websocket", "/a"], "--websocket needs --app"),
        (["--method", "PUT"], "--method needs --app"),
        (["--app", "a:b", "--websocket", "a"], "--websocket a: expected a path"),
        (["--app", "a:b", "--route", "/a", "--method", "P T"], "'P T' is no method"),
        (["--app", "a:b", "--route", "/a", "--header", "token"], "--header 'token': expected 'Name: value'"),
        (["--app", "a", "--route", "/a"], "--app a: expected module:attribute"),
        (["--app", "a:b", "--route", "a"], "--route a: expected a path"),
        (["--app", "a:b", "--route", "/a b"], "--route '/a b': expected %XX for spaces and what is not ASCII"),
        (["--app", "a:b", "--route", "/\u00fc"], "expected %XX for spaces and what is not ASCII"),
        (["--app", "a:b", "--route", "/a", "--app-dir", "/no/such"], "--app-dir /no/such: there is no such directory"),
    ],
)
def test_usage_errors_are_exit_code_2_and_a_sentence(words: list[str], sentence: str) -> None:
    result = drill(*words)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


def test_without_lastcall_another_server_can_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("lastcall_drill.servers.version", missing)
    result = drill("--scenario", "exit-idle")
    assert result.exit_code == 3
    assert "--server lastcall: it is not installed beside the drill: pip install lastcall" in result.stderr
    assert "--server uvicorn" in result.stderr


def test_a_clean_first_server_is_exit_code_0_and_every_report_is_written(tmp_path: Path) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("json", "junit", "html")}
    options = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    bad = f"{GOOD} --fault exit-code"
    result = drill("--server", GOOD, "--server", bad, "--scenario", "exit-code-sigterm", "--scale", "0.5", *options)
    assert result.exit_code == 0, result.output
    assert "exit-code-sigterm" in result.stdout
    assert result.stderr.startswith("1 scenario on ")
    run = from_json(json.loads(files["json"].read_text()))
    assert [(one.server, one.verdict) for one in run.results] == [(GOOD, Verdict.PASS), (bad, Verdict.FAIL)]
    assert run.scale == 0.5
    assert {"start", "ready", "signal", "exit"} <= {moment.what for moment in run.results[0].moments}
    assert "<testsuite" in files["junit"].read_text()
    assert "<html" in files["html"].read_text()


def test_a_first_server_that_fails_is_exit_code_1_with_its_timeline() -> None:
    bad = f"{GOOD} --fault exit-code"
    result = drill("--server", bad, "--server", GOOD, "--scenario", "exit-code-*m", "--scale", "0.5")
    assert result.exit_code == 1
    assert "exit-code-sigterm: fail (2 tries): exit code 1 after a clean stop" in result.stdout
    assert "signal" in result.stdout


def test_json_on_stdout_is_alone_there() -> None:
    result = drill("--server", GOOD, "--scenario", "exit-idle", "--scale", "0.5", "--json", "-")
    assert [one["verdict"] for one in json.loads(result.stdout)["results"]] == ["pass"]
    assert "exit-idle" in result.stderr


def test_a_release_that_cannot_be_had_is_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    from lastcall_drill import environments  # noqa: PLC0415

    def refuse(requirements: object, **_: object) -> None:
        raise environments.EnvironmentError_(f"{requirements} cannot be had")

    monkeypatch.setattr(environments, "environment_for", refuse)
    result = drill("--server", "uvicorn==0.0.0")
    assert result.exit_code == 3
    assert "cannot be had" in result.stderr


PROJECT = Path(__file__).parent / "projects" / "streams"
OF_SCENARIOS = (["--jobs", "6"], 3)
OF_AN_APP = (["--app", "feeds:app", "--route", "/events", "--app-dir", str(PROJECT), "--grace", "60"], 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", [OF_SCENARIOS, OF_AN_APP], ids=["scenarios", "app"])
def test_an_interrupt_leaves_no_process_behind(
    number: signal.Signals, mode: tuple[list[str], int], tmp_path: Path
) -> None:
    deaf = f"{GOOD} --fault deaf"
    options, servers = mode
    words = [sys.executable, "-m", "lastcall", "drill", "--server", deaf, *options]
    drilling = subprocess.Popen(
        words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_until(lambda: len(servers_of(drilling.pid)) >= servers)
        patience = Patience(5, drilling.pid)
        children = servers_of(drilling.pid)
        drilling.send_signal(number)
        while drilling.poll() is None:
            assert not patience.over
            time.sleep(0.01)
        _, errors = drilling.communicate()
        assert drilling.returncode == 130
        assert errors.rstrip().endswith("Every process that the drill has started is gone.")
        assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
        assert servers_of(drilling.pid) == []
    finally:
        for pid in [*servers_of(drilling.pid), drilling.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        drilling.wait()


def test_an_interrupt_while_something_is_installed_ends_that_too(tmp_path: Path) -> None:
    """An installation that hangs: a pip whose index accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        env = {
            **os.environ,
            "XDG_CACHE_HOME": str(tmp_path),
            "PIP_INDEX_URL": f"http://127.0.0.1:{index.getsockname()[1]}/simple",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_NO_INDEX": "0",
            "PIP_CONFIG_FILE": os.devnull,
        }
        words = [sys.executable, "-m", "lastcall", "drill", "--server", "granian==0.0.1"]
        drilling = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
        index.settimeout(SECONDS)
        index.accept()[0].close()
        drilling.send_signal(signal.SIGTERM)
        _, errors = drilling.communicate(timeout=SECONDS)
    assert drilling.returncode == 130, errors
    left = [int(name) for name in os.listdir("/proc") if name.isdigit() and session_of(int(name)) == drilling.pid]
    wait_until(lambda: not any(map(alive, left)))


STARTED = """
import os, signal, subprocess, sys
import click
from lastcall_drill.cli.end import interruptible
from testing.patience import Patience

@click.command()
@click.pass_context
def main(ctx):
    with interruptible(ctx, "it"):
        child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, start_new_session=True)
        print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        child.wait()

main()
"""


def test_an_interrupt_between_the_start_of_a_process_and_the_note_of_it_ends_that_too() -> None:
    done = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (130, "Interrupted. Every process that it has started is gone.\n")
    wait_until(lambda: not alive(int(done.stdout)))


def alive(pid: int) -> bool:
    """It runs. A grandchild whose parent was killed with it may wait for somebody who takes its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def servers_of(parent: int) -> list[int]:
    """Processes that carry the drill's mark, and were started by that one."""
    found = []
    for name in os.listdir("/proc"):
        try:
            stat = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if name.isdigit() and int(stat[1]) == parent and MARK.encode() in environment:
            found.append(int(name))
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)

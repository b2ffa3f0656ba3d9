"""Other servers than lastcall: found in units and manifests, and judged, with lastcall installed and without it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lastcall_doctor import cli
from lastcall_doctor.cli import doctor_command
from lastcall_doctor.facts import Launch
from lastcall_doctor.facts_others import server_of_another

SRC = Path(__file__).parents[2] / "src"

UNIT = """\
[Service]
Type=exec
ExecStart=/srv/app/.venv/bin/{command}
KillMode=mixed
TimeoutStopSec={seconds}
Restart=on-failure
LimitNOFILE=65536
"""


def find(tmp_path: Path, command: str, *words: str, seconds: int = 90) -> dict[str, dict[str, Any]]:
    """The findings of a unit that starts ``command``, by their ids."""
    (tmp_path / "app.service").write_text(UNIT.format(command=command, seconds=seconds))
    result = CliRunner().invoke(doctor_command, ["--json", "--unit", str(tmp_path / "app.service"), *words])
    assert result.exit_code in (0, 1), result.output
    return {one["id"]: one for one in json.loads(result.output)["findings"]}


@pytest.mark.parametrize(
    ("command", "worst_case", "keep_alive", "loopback"),
    [
        ("uvicorn a:b", math.inf, 5, True),
        ("uvicorn a:b --timeout-graceful-shutdown 20 --timeout-keep-alive=75 --host 0.0.0.0", 20, 75, False),
        ("hypercorn a:b", 63, 5, True),
        ("hypercorn a:b --graceful-timeout 10 -b [::]:80", 70, 5, False),
        ("gunicorn a:b -k uvicorn.workers.UvicornWorker", 30, 2, True),
        ("gunicorn a:b --graceful-timeout=7 --keep-alive 65 --bind unix:/run/app.sock", 7, 65, False),
        ("gunicorn a:b --graceful-timeout soon", 30, 2, True),
        ("granian a:b", math.inf, 0, True),
        ("granian a:b --workers-kill-timeout 15s --host 0.0.0.0", 15, 0, False),
    ],
)
def test_the_numbers_of_a_command(command: str, worst_case: float, keep_alive: float, loopback: bool) -> None:
    name, *words = command.split()
    server = server_of_another(Launch(tuple(words), name), "here")
    assert server is not None
    assert (server.name, server.worst_case, server.keep_alive) == (name, worst_case, keep_alive)
    assert server.loopback is loopback


@pytest.mark.parametrize("command", ["hypercorn -c app.toml a:b", "gunicorn --config=app.py a:b", "daphne a:b"])
def test_options_that_are_not_known(command: str, tmp_path: Path) -> None:
    name, *words = command.split()
    assert server_of_another(Launch(tuple(words), name), "here") is None
    found = find(tmp_path, command)
    assert list(found) == ["server-unknown"]
    assert name in found["server-unknown"]["text"]


@pytest.mark.parametrize("installed", [True, False])
def test_a_server_is_judged_with_lastcall_and_without(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "installed", lambda: installed)
    assert find(tmp_path, "uvicorn a:b --timeout-graceful-shutdown 20", seconds=35) == {}
    late = find(tmp_path, "gunicorn a:b --graceful-timeout 60", "--lb-idle", "60", seconds=30)
    assert list(late) == ["stop-timeout", "keep-alive"]
    assert "--graceful-timeout 29" in late["stop-timeout"]["fix"]
    assert late["stop-timeout"]["lines"] == ["TimeoutStopSec=61"]
    assert late["keep-alive"]["lines"] == ["--keep-alive 75"]
    endless = find(tmp_path, "uvicorn a:b", seconds=30)
    assert endless["stop-timeout"]["lines"] == ["--timeout-graceful-shutdown 20"]
    shell = find(tmp_path, "sh -c 'uvicorn a:b --timeout-graceful-shutdown 5'")
    assert shell["shell-in-front"]["lines"] == ["exec uvicorn a:b --timeout-graceful-shutdown 5"]


def test_what_a_cluster_needs_of_another_server(tmp_path: Path) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app"},
        "spec": {"containers": [{"name": "app", "image": "app", "command": ["gunicorn", "a:b", "-b", "0.0.0.0:80"]}]},
    }
    (tmp_path / "pod.json").write_text(json.dumps(manifest))
    result = CliRunner().invoke(doctor_command, ["--json", "--manifest", str(tmp_path / "pod.json")])
    found = {one["id"]: one for one in json.loads(result.output)["findings"]}
    assert "lastcall" not in result.output
    assert found["stop-timeout"]["lines"] == ["terminationGracePeriodSeconds: 31"]


def test_without_lastcall_its_options_are_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "installed", lambda: False)
    found = find(tmp_path, "lastcall a:b --timeout-graceful-shutdown 600")
    assert list(found) == ["server-unknown"]
    assert "without lastcall: pip install lastcall" in found["server-unknown"]["text"]
    result = CliRunner().invoke(doctor_command, ["a:b"])
    assert result.exit_code == 2
    assert "a:b is started under lastcall, which is not installed: pip install lastcall" in result.stderr


@pytest.mark.slow
def test_the_command_needs_no_lastcall(tmp_path: Path) -> None:
    """In an interpreter that has these packages and click, and cannot find lastcall."""
    import click  # noqa: PLC0415

    shutil.copytree(Path(click.__file__).parent, tmp_path / "click")
    (tmp_path / "app.service").write_text(UNIT.format(command="uvicorn a:b", seconds=30))
    script = f"import sys; sys.path[:0] = {[str(SRC), str(tmp_path)]}; from lastcall_doctor.cli import main; main()"
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(
        [*command, "--unit", "app.service"], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("error stop-timeout: app.service\n")
    told = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True)
    assert "None: lastcall is not installed here. pip install lastcall" in " ".join(told.stdout.split())


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("uvicorn a:b --timeout-graceful-shutdown 20", True),
        ("hypercorn a:b", True),
        ("gunicorn a:b -k uvicorn.workers.UvicornWorker", False),
    ],
)
def test_who_says_that_it_is_ready(tmp_path: Path, command: str, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "UNIT", UNIT.replace("Type=exec", "Type=notify"))
    assert ("service-type" in find(tmp_path, command)) is found


def test_who_says_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "UNIT", UNIT.replace("Type=exec", "Type=exec\nWatchdogSec=30"))
    for command in ("uvicorn a:b", "gunicorn a:b"):
        assert find(tmp_path, command)["service-type"]["lines"] == ["WatchdogSec=0"]

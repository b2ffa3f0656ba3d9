"""The files of ``deploy/``: their times follow from the defaults, and those who are to read them can."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lastcall.cli.flags import given_flags
from lastcall.cli.main import serve_command
from lastcall.config import Config
from lastcall.server.parts import budgets_of
from lastcall.supervisor.policy import KILL_MARGIN
from lastcall_doctor import facts_machine
from lastcall_doctor.cli import doctor_command
from lastcall_doctor.facts import Machine

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = ["systemd/app.service", "systemd/activated/app.service"]
SPARE = (2, 10)
"""Seconds that a kill timer leaves beyond the longest stop: at least, so that it never comes first, and at most."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LASTCALL_APP", "LASTCALL_PORT", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def unit(name: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text(name).splitlines() if line[:1] not in ("#", "["))
    return {key: value for key, equals, value in lines if equals}


def config_of(words: list[str]) -> Config:
    """What lastcall makes of a command; the first word is lastcall."""
    assert Path(words[0]).name == "lastcall"
    context = serve_command.make_context("lastcall", words[1:])
    given = given_flags(context, context.params)
    given.pop("drain_report", None)  # whose directory systemd makes
    return Config.from_command(context.params["app"], given, {})


def longest_stop(config: Config) -> float:
    """Of a service: a parent waits a moment longer than its workers may take."""
    more = KILL_MARGIN if config.options.workers.supervised else 0.0
    return budgets_of(config.options.stop).worst_case() + more


def deployment() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text("kubernetes/base/deployment.yaml"))
    return found


def container() -> dict[str, Any]:
    (found,) = deployment()["spec"]["template"]["spec"]["containers"]
    return dict(found)


def seconds(word: str) -> float:
    match = re.fullmatch(r"(\d+)(s|m|h)", word)
    assert match is not None
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


# -- The times --------------------------------------------------------------------------------------------------------


def test_the_defaults_that_the_comments_add_up() -> None:
    budgets = budgets_of(Config("app:app").options.stop)
    parts = (budgets.graceful, budgets.cancel, budgets.lifespan_shutdown, budgets.worst_case())
    assert parts == (20, 2, 5, 28)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_kills_after_the_longest_stop(name: str) -> None:
    found = unit(name)
    left = int(found["TimeoutStopSec"]) - longest_stop(config_of(shlex.split(found["ExecStart"])))
    assert SPARE[0] <= left <= SPARE[1]


def test_kubernetes_kills_after_the_longest_stop() -> None:
    config = config_of(container()["command"])
    left = deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] - longest_stop(config)
    assert SPARE[0] <= left <= SPARE[1]
    assert config.drain_delay > 0, "the endpoints do not know at the signal"


def test_docker_kills_after_the_longest_stop() -> None:
    service = yaml.safe_load(text("docker/compose.yaml"))["services"]["app"]
    left = seconds(service["stop_grace_period"]) - longest_stop(config_of(service["command"]))
    assert SPARE[0] <= left <= SPARE[1]


def test_the_image_starts_what_compose_starts() -> None:
    command = re.search(r"^CMD (\[.*\])$", text("docker/Dockerfile"), re.MULTILINE)
    assert command is not None
    assert json.loads(command[1]) == yaml.safe_load(text("docker/compose.yaml"))["services"]["app"]["command"]
    assert longest_stop(config_of(json.loads(command[1]))) < math.inf


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("proxy/nginx.conf", r"keepalive_timeout (\w+);"),
        ("proxy/haproxy.cfg", r"pool-purge-delay (\w+)"),
        ("proxy/Caddyfile", r"keepalive (\w+)"),
    ],
)
def test_the_proxy_closes_idle_connections_first(name: str, pattern: str) -> None:
    (found,) = re.findall(rf"^\s*(?:default-server )?{pattern}$", text(name), re.MULTILINE)
    assert seconds(found) <= Config("app:app").timeout_keep_alive - 5


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("proxy/haproxy.cfg", r"inter (\d+)s fall (\d+)"),
        ("proxy/Caddyfile", r"health_interval (\d+)s\s+health_fails (\d+)"),
    ],
)
def test_checks_notice_within_the_drain_delay(name: str, pattern: str) -> None:
    found = text(name)
    interval, fails = re.findall(pattern, found)[0]
    (delay,) = set(re.findall(r"--drain-delay (\d+)", found))
    assert int(interval) * int(fails) < int(delay)
    assert container()["command"][container()["command"].index("--drain-delay") + 1] == delay


def test_nginx_closes_idle_connections_within_the_drain_delay() -> None:
    """It has no checks: by the end of the delay it has none left over which a POST could meet a close."""
    found = text("proxy/nginx.conf")
    (timeout,) = re.findall(r"keepalive_timeout (\w+);", found)
    (delay,) = set(re.findall(r"--drain-delay (\d+)", found))
    assert seconds(timeout) < int(delay)


def test_probes_ask_what_is_served() -> None:
    found = container()
    prefix = config_of(found["command"]).health_path
    assert found["readinessProbe"]["httpGet"]["path"] == f"{prefix}/ready"
    assert found["livenessProbe"]["httpGet"]["path"] == f"{prefix}/live"
    port = {each["name"]: each["containerPort"] for each in found["ports"]}[found["readinessProbe"]["httpGet"]["port"]]
    assert port == config_of(found["command"]).port
    assert "/-/ready" in text("docker/compose.yaml")


def test_the_loop_may_stall_for_less_than_the_watchdog_waits() -> None:
    """systemd is the last resort: a worker that stalls is its parent's matter, so the parent's own beat is short."""
    for name in UNITS:
        assert int(unit(name)["WatchdogSec"]) >= 10


# -- Those who read them ----------------------------------------------------------------------------------------------


def findings(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[dict[str, Any]]:
    monkeypatch.setattr(facts_machine, "look", lambda: Machine(nofile=65536, somaxconn=4096))
    result = CliRunner().invoke(doctor_command, ["--json", *arguments])
    assert result.exit_code in (0, 1), result.output
    found: list[dict[str, Any]] = json.loads(result.output)["findings"]
    return found


def test_the_doctor_finds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The manifests together, as ``kubectl kustomize`` prints them: a service alone starts no server."""
    base = DEPLOY / "kubernetes" / "base"
    names = yaml.safe_load(text("kubernetes/base/kustomization.yaml"))["resources"]
    assert sorted(names) == sorted(file.name for file in base.iterdir() if file.name != "kustomization.yaml")
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text("---\n".join((base / name).read_text(encoding="utf-8") for name in names))
    manifests = [rendered, DEPLOY / "docker" / "compose.yaml", DEPLOY / "docker" / "Dockerfile"]
    proxies = [DEPLOY / "proxy" / name for name in ("nginx.conf", "haproxy.cfg")]
    arguments = [f"--unit={DEPLOY / name}" for name in UNITS]
    arguments += [f"--manifest={path}" for path in manifests] + [f"--proxy={path}" for path in proxies]
    assert findings(monkeypatch, *arguments) == []


def test_selectors_and_ports_fit_together() -> None:
    service = yaml.safe_load(text("kubernetes/base/service.yaml"))
    budget = yaml.safe_load(text("kubernetes/base/disruption-budget.yaml"))
    labels = deployment()["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] in [port["name"] for port in container()["ports"]]


def need(command: str, package: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"needs {command}, of the Debian package {package}")


def verify(directory: Path) -> str:
    """What ``systemd-analyze verify`` says about the units; it exits with 0 for unknown keys, so the words count."""
    need("systemd-analyze", "systemd")
    units = [str(path) for path in sorted(directory.iterdir())]
    made = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=25, check=False
    )
    assert made.returncode == 0, made.stderr
    return made.stderr


def render(directory: Path, *names: str) -> Path:
    """The units with a program that exists on this machine."""
    for name in names:
        rendered = text(name).replace("/srv/app/.venv/bin/lastcall", sys.executable)
        (directory / Path(name).name).write_text(rendered)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [["systemd/app.service"], ["systemd/activated/app.service", "systemd/activated/app.socket"]]
)
def test_systemd_has_nothing_to_say(tmp_path: Path, names: list[str]) -> None:
    assert verify(render(tmp_path, *names)) == ""


@pytest.mark.slow
def test_systemd_would_say_it(tmp_path: Path) -> None:
    render(tmp_path, "systemd/app.service")
    path = tmp_path / "app.service"
    path.write_text(path.read_text().replace("TimeoutStopSec=", "TimeoutStopSek="))
    assert "TimeoutStopSek" in verify(tmp_path)


@pytest.mark.slow
def test_nginx_takes_it(tmp_path: Path) -> None:
    need("nginx", "nginx-light")
    (tmp_path / "nginx.conf").write_text(
        f"events {{}}\npid {tmp_path}/pid;\nerror_log stderr;\nhttp {{ include {DEPLOY}/proxy/nginx.conf; }}\n"
    )
    command = ["nginx", "-t", "-q", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    made = subprocess.run(command, capture_output=True, text=True, timeout=25, check=False)
    assert (made.returncode, made.stderr) == (0, "")


@pytest.mark.slow
def test_haproxy_takes_it() -> None:
    need("haproxy", "haproxy")
    command = ["haproxy", "-c", "-q", "-f", str(DEPLOY / "proxy" / "haproxy.cfg")]
    made = subprocess.run(command, capture_output=True, text=True, timeout=25, check=False)
    assert made.returncode == 0, made.stderr
    assert "ALERT" not in made.stderr
    assert "WARNING" not in made.stderr

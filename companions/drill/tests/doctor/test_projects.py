"""A good project has no findings; the same project with one thing wrong has that one finding. Nothing is started."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lastcall_doctor import facts_machine
from lastcall_doctor.cli import doctor_command
from lastcall_doctor.facts import Machine
from lastcall_doctor.facts_machine import look
from testing.pages import page

GOOD = {
    "app.service": """\
[Unit]
Description=app

[Service]
Type=exec
WorkingDirectory=/srv/app
Environment=LASTCALL_ROOT_PATH=/api
ExecStart=/srv/app/.venv/bin/lastcall app:app --uds /run/app/app.sock --drain-report /run/app/stopped.json
KillMode=mixed
TimeoutStopSec=35
Restart=on-failure
LimitNOFILE=65536
""",
    "k8s.yaml": """\
apiVersion: v1
kind: Service
metadata: { name: app }
spec: { ports: [ { port: 80 } ] }
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
spec:
  template:
    spec:
      terminationGracePeriodSeconds: 35
      containers:
        - name: app
          image: app:1
          command: ["lastcall", "app:app", "--host", "0.0.0.0", "--drain-delay", "5", "--health-path", "/-"]
          readinessProbe:
            httpGet: { path: /-/ready, port: 8000 }
""",
    "compose.yaml": """\
services:
  db:
    image: postgres:17
    command: postgres -c log_statement=all
  app:
    build: .
    command: lastcall app:app --host 0.0.0.0
    environment:
      LASTCALL_LOG_LEVEL: info
    stop_grace_period: 30s
""",
    "nginx.conf": """\
upstream app { server 10.0.0.1:8000; keepalive 64; }
server {
    location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
    location /events {
        proxy_pass http://app;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffering off;
        proxy_read_timeout 1h;
    }
}
""",
    "haproxy.cfg": """\
defaults
    timeout server 1h
backend app
    server app1 10.0.0.1:8000
""",
}
ARGUMENTS = {
    "app.service": ["--unit", "app.service"],
    "k8s.yaml": ["--manifest", "k8s.yaml"],
    "compose.yaml": ["--manifest", "compose.yaml"],
    "nginx.conf": ["--proxy", "nginx.conf"],
    "haproxy.cfg": ["--proxy", "haproxy.cfg"],
}
SOUND = Machine(nofile=65536, somaxconn=4096)


class Doctor:
    """The command, in a directory of its own, on a machine that is described."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch
        self.on(SOUND)

    def on(self, machine: Machine) -> None:
        self._monkeypatch.setattr(facts_machine, "look", lambda: machine)

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.directory / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def run(self, *args: str) -> tuple[int, str]:
        result = CliRunner().invoke(doctor_command, args)
        return result.exit_code, result.output

    def ask(self, *args: str) -> list[dict[str, Any]]:
        code, output = self.run("--json", *args)
        answer = json.loads(output)
        errors = any(one["severity"] == "error" for one in answer["findings"])
        assert code == (1 if errors else 0)
        found: list[dict[str, Any]] = answer["findings"]
        return found


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    monkeypatch.chdir(tmp_path)
    for name in ("LASTCALL_APP", "LASTCALL_PORT", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    return Doctor(tmp_path, monkeypatch)


def everything() -> list[str]:
    return [word for words in ARGUMENTS.values() for word in words]


def test_a_good_project_has_no_findings(doctor: Doctor) -> None:
    doctor.write(GOOD)
    code, output = doctor.run(*everything(), "--lb-idle", "60")
    assert output == ("No findings: options, app.service, k8s.yaml, compose.yaml, nginx.conf, haproxy.cfg.\n")
    assert code == 0


SAMPLES = [
    ("stop-under-systemd", "ini", "--unit"),
    ("stop-under-kubernetes", "yaml", "--manifest"),
    ("stop-in-docker", "yaml", "--manifest"),
    ("stop-behind-a-load-balancer", "nginx", "--proxy"),
    ("stop-behind-a-load-balancer", "haproxy", "--proxy"),
]


@pytest.mark.parametrize(("name", "language", "flag"), SAMPLES)
def test_what_our_pages_recommend_is_sound(doctor: Doctor, name: str, language: str, flag: str) -> None:
    sample = next(one for one in page(f"docs/how-to/{name}.md").blocks if one.language == language)
    doctor.write({"sample": sample.text})
    assert doctor.run(flag, "sample", "--lb-idle", "60") == (0, "No findings: options, sample.\n")


UNIT, POD, COMPOSE, NGINX = "app.service", "k8s.yaml", "compose.yaml", "nginx.conf"
HAPROXY = "haproxy.cfg"
FRONT = "frontend front\n    default_backend app\n    bind :443"
EXEC = "ExecStart=/srv/app/.venv/bin/lastcall app:app --uds /run/app/app.sock --drain-report /run/app/stopped.json"
COMMAND = '["lastcall", "app:app", "--host", "0.0.0.0", "--drain-delay", "5", "--health-path", "/-"]'
MIXED_SHELL = "ExecStart=/bin/sh -c 'cd /srv && lastcall app:app'"
PROBE = "          readinessProbe:\n            httpGet: { path: /-/ready, port: 8000 }\n"

WRONG = [
    # file, what stands there, what is wrong in its deployment: the finding, its severity, a line that mends it
    (UNIT, "TimeoutStopSec=35", "TimeoutStopSec=10s", "stop-timeout", "error", "TimeoutStopSec=29"),
    (UNIT, "TimeoutStopSec=35", "TimeoutStopSec=28", "stop-timeout", "warning", "TimeoutStopSec=29"),
    (UNIT, "TimeoutStopSec=35", "TimeoutSec=0min 20s", "stop-timeout", "error", "TimeoutSec=29"),
    (UNIT, EXEC, f"{EXEC} --timeout-graceful-shutdown 120", "stop-timeout", "error", "TimeoutStopSec=129"),
    (UNIT, "TimeoutStopSec=35", 'Environment="LASTCALL_TIMEOUT_GRACEFUL_SHUTDOWN=120"', "stop-timeout", "error", None),
    (UNIT, EXEC, f"{EXEC} --timeout-cancel none", "stop-timeout", "error", "--timeout-cancel 2"),
    (UNIT, "TimeoutStopSec=35", "TimeoutStopSec=35\nKillSignal=INT", "stop-signal", "warning", "KillSignal=SIGTERM"),
    (UNIT, "TimeoutStopSec=35", "TimeoutStopSec=35\nKillSignal=9", "stop-signal", "error", "KillSignal=SIGTERM"),
    (UNIT, "TimeoutStopSec=35", "TimeoutStopSec=35\nKillSignal=SIGUSR1", "stop-signal", "error", None),
    (UNIT, EXEC, MIXED_SHELL, "shell-in-front", "error", "exec lastcall app:app"),
    (UNIT, EXEC, MIXED_SHELL.replace("/bin/sh", "/bin/bash"), "shell-in-front", "warning", "exec lastcall app:app"),
    (UNIT, "KillMode=mixed\n", "", "kill-mode", "note", "KillMode=mixed"),
    (UNIT, "KillMode=mixed", "KillMode=process", "kill-mode", "warning", "KillMode=mixed"),
    (UNIT, "KillMode=mixed", "KillMode=none", "kill-mode", "error", "KillMode=mixed"),
    (UNIT, "Type=exec", "Type=forking", "service-type", "error", "Type=exec"),
    (UNIT, "Restart=on-failure\n", "", "restart", "warning", "Restart=on-failure"),
    (UNIT, EXEC, f"{EXEC} --limit-max-requests 9", "restart", "warning", "Restart=always"),
    (UNIT, "LimitNOFILE=65536", "LimitNOFILE=512:4096", "descriptors", "warning", "LimitNOFILE=65536"),
    (UNIT, "LimitNOFILE=65536\n", "Environment=LASTCALL_LIMIT_CONCURRENCY=1000\n", "descriptors", "error", None),
    (UNIT, EXEC, f"{EXEC} --limit-connections 100K", "command-refused", "error", None),
    (UNIT, EXEC, f"{EXEC} --wrong", "command-refused", "error", None),
    (UNIT, EXEC, f"{EXEC} $MORE", "command-unread", "note", None),
    (UNIT, EXEC, "ExecStart=/usr/bin/somebody app:app", "no-server", "warning", None),
    (UNIT, EXEC, "ExecStart=/usr/bin/python3 -X dev -m lastcall app:app", "debug-python", "warning", None),
    (UNIT, EXEC, f"{EXEC}\nEnvironment=PYTHONASYNCIODEBUG=1", "debug-python", "warning", None),
    (UNIT, EXEC, f"{EXEC} --lifespan off", "lifespan-off", "warning", "--lifespan auto"),
    (UNIT, EXEC, f"{EXEC} --timeout-keep-alive 60", "keep-alive", "error", "--timeout-keep-alive 75"),
    (POD, "      terminationGracePeriodSeconds: 35\n", "", "stop-timeout", "error",
     "terminationGracePeriodSeconds: 34"),
    (POD, "readinessProbe:", "lifecycle: {preStop: {sleep: {seconds: 5}}}\n          readinessProbe:", "stop-timeout",
     "error", "terminationGracePeriodSeconds: 39"),
    (POD, PROBE, PROBE + '          lifecycle: {preStop: {exec: {command: [sh, -c, "sleep 2.5"]}}}\n',
     "stop-timeout", "error", None),
    (POD, "readinessProbe:", "lifecycle: {stopSignal: SIGINT}\n          readinessProbe:", "stop-signal", "warning",
     "stopSignal: SIGTERM"),
    (POD, COMMAND, f'["sh", "-c", {json.dumps(" ".join(json.loads(COMMAND)))}]', "shell-in-front", "error",
     f"exec {' '.join(json.loads(COMMAND))}"),
    (POD, '"--drain-delay", "5", ', "", "drain-delay", "warning", "--drain-delay 5"),
    (POD, PROBE, "", "readiness", "warning", "  httpGet: { path: /-/ready, port: 8000 }"),
    (POD, "path: /-/ready", "path: /-/live", "readiness", "warning", "httpGet: { path: /-/ready, port: 8000 }"),
    (POD, '"--host", "0.0.0.0", ', "", "loopback", "error", "--host 0.0.0.0"),
    (POD, "image: app:1", "image: app:1\n          env: [{name: PYTHONDEVMODE, value: '1'}]", "debug-python", "warning",
     None),
    (COMPOSE, "    stop_grace_period: 30s\n", "", "stop-timeout", "error", "stop_grace_period: 29s"),
    (COMPOSE, "30s", "0m9s", "stop-timeout", "error", "stop_grace_period: 29s"),
    (COMPOSE, "LASTCALL_LOG_LEVEL: info", "LASTCALL_TIMEOUT_CANCEL: 20", "stop-timeout", "error", None),
    (COMPOSE, "30s", "30s\n    stop_signal: SIGQUIT", "stop-signal", "error", "stop_signal: SIGTERM"),
    (COMPOSE, "command: lastcall app:app", "command: sh -c 'lastcall app:app --host ::'", "shell-in-front", "error",
     None),
    (COMPOSE, "--host 0.0.0.0", "--host localhost", "loopback", "error", "--host 0.0.0.0"),
    (COMPOSE, "--host 0.0.0.0", "--host 0.0.0.0 --driver asyncio", "portable-driver", "note", "--driver auto"),
    (COMPOSE, "--host 0.0.0.0", "--uds /s --port 80", "no-effect", "note", None),
    (NGINX, "proxy_buffering off;", "", "proxy-buffering", "warning", "proxy_buffering off;"),
    (NGINX, "proxy_read_timeout 1h;", "", "proxy-read-timeout", "note", "proxy_read_timeout 1h;"),
    (NGINX, '/ { proxy_pass http://app; proxy_http_version 1.1;', "/ { proxy_pass http://app;", "proxy-keep-alive",
     "warning", "proxy_http_version 1.1;"),
    (HAPROXY, "backend app", f"{FRONT} ssl crt x alpn h2,http/1.1\nbackend app", "cut-hidden", "note", "event: done"),
    (HAPROXY, "backend app", f"{FRONT} ssl crt x\nbackend app", "cut-hidden", "note", "event: done"),
    (HAPROXY, "backend app", f"{FRONT} proto h2\nbackend app", "cut-hidden", "note", None),
    (NGINX, "keepalive 64;", "keepalive 64; keepalive_timeout 2m;", "keep-alive", "error", "--timeout-keep-alive 135"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "good", "bad", "name", "severity", "line"),
    WRONG,
    ids=[f"{number}-{one[3]}-{one[0]}" for number, one in enumerate(WRONG)],
)
def test_one_thing_wrong_is_one_finding(
    doctor: Doctor, file: str, good: str, bad: str, name: str, severity: str, line: str | None
) -> None:
    assert good in GOOD[file]
    doctor.write({**GOOD, file: GOOD[file].replace(good, bad)})
    (finding,) = doctor.ask(*ARGUMENTS[file], "--lb-idle", "60")
    assert (finding["id"], finding["severity"]) == (name, severity)
    assert finding["where"].startswith(file) or name == "keep-alive"
    assert finding["text"].endswith(".")
    assert finding["fix"].endswith(".")
    assert line is None or line in finding["lines"]


@pytest.mark.parametrize("words", ["", " ssl crt x alpn http/1.1", " ssl crt x no-alpn", " # alpn h2"])
def test_haproxy_without_http2_in_front_hides_no_cut(doctor: Doctor, words: str) -> None:
    doctor.write({"haproxy.cfg": f"{FRONT}{words}\n{GOOD['haproxy.cfg']}"})
    assert doctor.ask("--proxy", "haproxy.cfg") == []


def test_nginx_over_tls_by_http_1_0_hides_a_cut(doctor: Doctor) -> None:
    location = "server {{ location / {{ proxy_pass {}; proxy_buffering off; proxy_read_timeout 1h; {} }} }}"
    doctor.write({"nginx.conf": location.format("https://app:8443", "")})
    (finding,) = doctor.ask("--proxy", "nginx.conf")
    assert (finding["id"], finding["lines"][0]) == ("cut-hidden", "proxy_http_version 1.1;")
    for words in (("https://app:8443", "proxy_http_version 1.1;"), ("http://app:8000", "")):
        doctor.write({"nginx.conf": location.format(*words)})
        assert doctor.ask("--proxy", "nginx.conf") == []


def test_the_figures_are_in_the_sentence(doctor: Doctor) -> None:
    doctor.write({"app.service": GOOD["app.service"].replace("TimeoutStopSec=35\n", "")})
    (finding,) = doctor.ask("--unit", "app.service", "--timeout-graceful-shutdown", "100", "--drain-delay", "2")
    assert finding["text"].startswith(
        "A stop takes up to 110 s, and systemd kills after 90 s (TimeoutStopSec, the default): "
    )
    assert finding["fix"] == "Give it 111 s, or give requests less: --timeout-graceful-shutdown 79."


def test_a_stop_without_limit_where_nothing_kills(doctor: Doctor) -> None:
    doctor.write({"app.service": GOOD["app.service"].replace("TimeoutStopSec=35", "TimeoutStopSec=infinity")})
    (finding,) = doctor.ask("--unit", "app.service", "--timeout-graceful-shutdown", "none")
    assert finding["id"] == "stop-unbounded"
    assert finding["lines"] == ["--timeout-graceful-shutdown 20"]


@pytest.mark.parametrize("lines", ["Type=notify\nNotifyAccess=all", "Type=notify-reload", "Type=exec\nWatchdogSec=30"])
def test_lastcall_speaks_to_systemd(doctor: Doctor, lines: str) -> None:
    doctor.write({"app.service": GOOD["app.service"].replace("Type=exec", lines)})
    assert doctor.ask("--unit", "app.service") == []


def test_under_a_parent_a_limit_of_requests_ends_no_service(doctor: Doctor) -> None:
    doctor.write({UNIT: GOOD[UNIT].replace(EXEC, f"{EXEC} --workers 2 --limit-max-requests 9")})
    assert doctor.ask("--unit", UNIT) == []


def test_a_drop_in_wins(doctor: Doctor) -> None:
    doctor.write(
        {
            "app.service": GOOD["app.service"],
            "app.service.d/20-more.conf": "[Service]\nTimeoutStopSec=1min 20s\n",
            "app.service.d/10-less.conf": "[Service]\nTimeoutStopSec=10\nExecStart=\nExecStart=lastcall app:app \\\n"
            "  # a comment inside\n  --timeout-graceful-shutdown 80\n",
        }
    )
    (finding,) = doctor.ask("--unit", "app.service")
    assert finding["text"].startswith("A stop takes up to 88 s, and systemd kills after 80 s (TimeoutStopSec): ")


def test_an_environment_file_is_read(doctor: Doctor) -> None:
    unit = GOOD["app.service"].replace("[Service]", f"[Service]\nEnvironmentFile=-{doctor.directory}/env")
    doctor.write({"app.service": unit, "env": "# a comment\nLASTCALL_LIFESPAN='off'\n"})
    (finding,) = doctor.ask("--unit", "app.service")
    assert finding["id"] == "lifespan-off"


def test_the_doctors_own_options_win_over_those_of_the_unit(doctor: Doctor) -> None:
    doctor.write({"app.service": GOOD["app.service"].replace(EXEC, f"{EXEC} --timeout-graceful-shutdown 300")})
    assert doctor.ask("--unit", "app.service", "--timeout-graceful-shutdown", "20") == []


def test_a_variable_of_the_unit_is_put_in(doctor: Doctor) -> None:
    unit = GOOD["app.service"].replace(
        EXEC, "Environment=GRACE=200\nExecStart=lastcall app:app ${OPTS} --timeout-graceful-shutdown $GRACE"
    )
    doctor.write({"app.service": unit.replace("${OPTS} ", "")})
    (finding,) = doctor.ask("--unit", "app.service")
    assert finding["lines"] == ["TimeoutStopSec=209"]


def test_containers_that_leave_the_command_to_their_image_are_judged(doctor: Doctor) -> None:
    pod = GOOD["k8s.yaml"].replace(f"          command: {COMMAND}\n", "")
    doctor.write({"k8s.yaml": pod})
    (finding,) = doctor.ask("--manifest", "k8s.yaml", "--drain-delay", "9")
    assert finding["id"] == "stop-timeout"


def test_a_sidecar_takes_the_connections(doctor: Doctor) -> None:
    pod = GOOD["k8s.yaml"].replace('"--host", "0.0.0.0", ', "")
    doctor.write({"k8s.yaml": f"{pod}        - name: proxy\n          image: envoy\n"})
    assert doctor.ask("--manifest", "k8s.yaml") == []


@pytest.mark.parametrize(
    ("machine", "args", "name", "line"),
    [
        (Machine(nofile=256), [], "descriptors", "ulimit -n 65536"),
        (Machine(nofile=4096), ["--limit-connections", "100000"], "descriptors", "ulimit -n 131072"),
        (Machine(somaxconn=128), [], "backlog", "net.core.somaxconn = 2048"),
        (Machine(debug="-X dev"), [], "debug-python", None),
        (
            Machine(missing_modules=("lastcall.net.loop",)),
            [],
            "missing-modules",
            "pip install --force-reinstall lastcall",
        ),
        (SOUND, ["--lb-idle", "75"], "keep-alive", "--timeout-keep-alive 90"),
        (SOUND, ["--lb-idle", "600"], "keep-alive", "--timeout-keep-alive 615"),
        (SOUND, ["--timeout-lifespan-shutdown", "none"], "stop-unbounded", "--timeout-lifespan-shutdown 5"),
    ],
)  # fmt: skip
def test_the_machine_and_the_options(
    doctor: Doctor, machine: Machine, args: list[str], name: str, line: str | None
) -> None:
    doctor.on(machine)
    (finding,) = doctor.ask(*args)
    assert finding["id"] == name
    assert line is None or line in finding["lines"]


@pytest.mark.parametrize("args", [[], ["--lb-idle", "74.9"], ["--lb-idle", "600", "--timeout-keep-alive", "0"]])
def test_defaults_are_sound(doctor: Doctor, args: list[str]) -> None:
    assert doctor.ask(*args) == []


def test_missing_extras_are_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lastcall_doctor.facts_server.importlib.util.find_spec", lambda name: None)
    found = doctor.ask("--loop", "uvloop", "--log-config", "logging.yaml")
    assert [one["lines"] for one in found] == [["pip install 'lastcall[uvloop]'"], ["pip install 'lastcall[yaml]'"]]
    assert {one["id"] for one in found} == {"missing-extra"}


def test_this_machine_can_be_looked_at() -> None:
    machine = look()
    assert machine.missing_modules == ()
    assert machine.nofile > 0


# -- what cannot be read ----------------------------------------------------------------------------------------------

UNREADABLE: list[tuple[str, str | bytes, str]] = [
    (UNIT, "[Service]\nTimeoutStopSec=soon\n", "app.service:2: TimeoutStopSec=soon is not usable: expected a time"),
    (UNIT, "[Service]\nExecStart=lastcall 'app:app\n", "app.service:2: ExecStart="),
    (UNIT, "[Service]\n\nLimitNOFILE=many\n", "app.service:3: LimitNOFILE=many is not usable: expected a number"),
    (UNIT, "Type=exec\n", "app.service:1: Type= stands before the first section"),
    (UNIT, "[Service]\nnonsense\n", "app.service:2: expected Name=value, a section or a comment, not 'nonsense'"),
    (UNIT, "[Service\n", "app.service:1: expected a section as in [Service], not '[Service'"),
    (UNIT, b"\xff\xfe", "app.service: this is not UTF-8 text (byte 0)"),
    (POD, "kind: [\n", "k8s.yaml:2: this is not YAML: "),
    (POD, "kind: Pod\nspec: {{ .Values.spec }}\nx: [\n", "render templates first (helm template)"),
    (POD, "kind: Pod\nspec:\n  terminationGracePeriodSeconds: soon\n  containers: [{}]\n", "k8s.yaml:3: termination"),
    (POD, "kind: Pod\nspec: 3\n", "k8s.yaml:2: spec has to be a mapping, not 3"),
    (POD, "kind: Pod\nspec:\n  containers: app\n", "k8s.yaml:3: containers has to be a list of mappings, not 'app'"),
    (POD, "kind: Pod\nspec: &a\n  containers: [*a]\n", "k8s.yaml:2: an alias stands inside of what it names"),
    (COMPOSE, "services:\n  app:\n    command: lastcall 'app\n", "compose.yaml:3: command is no command"),
    (COMPOSE, "services:\n  app:\n    stop_grace_period: 30\n", "compose.yaml:3: stop_grace_period: 30 is not usable"),
    (COMPOSE, "services: [app]\n", "compose.yaml:1: services has to be a mapping, not a list"),
    (NGINX, "server {\n  listen 80\n}\n", 'nginx.conf:3: unexpected "}", expected ";"'),
    (NGINX, "server {\n", 'nginx.conf:1: the file ends, expected "}" of server in line 1'),
    (NGINX, "}\n", 'nginx.conf:1: unexpected "}"'),
    (NGINX, 'a "b\n', "nginx.conf:1: expected a directive"),
    (NGINX, "\nproxy_read_timeout soon;\n", "nginx.conf:2: proxy_read_timeout soon is not usable: expected a time"),
    ("haproxy.cfg", "defaults\n  timeout server soon\n", "haproxy.cfg:2: timeout server: expected a time"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "text", "message"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_cannot_be_read_is_named_with_its_line(doctor: Doctor, file: str, text: str | bytes, message: str) -> None:
    (doctor.directory / file).write_bytes(text.encode() if isinstance(text, str) else text)
    code, output = doctor.run(*ARGUMENTS[file])
    assert code == 2
    assert output.startswith("Error: ")
    assert message in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--unit", "nowhere.service"], "nowhere.service"),
        (["--lb-idle", "soon"], "--lb-idle: 'soon' is not usable: expected a number of seconds above 0"),
        (["--probe", "/events"], "--probe: '/events' is not usable: expected an application to start"),
        (["app:app", "--probe", "events"], "--probe: 'events' is not usable: expected a path that begins with /"),
        (["--port", "99999"], "--port: '99999' is not usable"),
        (["--wrong"], "--wrong"),
    ],
)
def test_usage(doctor: Doctor, args: list[str], message: str) -> None:
    code, output = doctor.run(*args)
    assert code == 2
    assert message in output


def test_without_pyyaml_there_is_a_hint(doctor: Doctor, hide_module: Callable[[str], None]) -> None:
    doctor.write(GOOD)
    hide_module("yaml")
    assert doctor.run("--manifest", "k8s.yaml") == (2, "Error: --manifest needs PyYAML: pip install PyYAML\n")
    assert doctor.run("--unit", "app.service")[0] == 0


@pytest.fixture
def hide_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the import of a module fail."""
    import sys  # noqa: PLC0415

    return lambda name: monkeypatch.setitem(sys.modules, name, None)

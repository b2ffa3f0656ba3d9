"""Files beside units and manifests: which are read, what is found in them, and what is said of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lastcall_doctor import facts_machine
from lastcall_doctor.cli import doctor_command
from lastcall_doctor.facts import Machine
from lastcall_doctor.facts_docker import deployments_of, instructions
from lastcall_doctor.facts_unit import signal_sent
from lastcall_doctor.images import is_infrastructure

DOCKERFILE = """\
# syntax=docker/dockerfile:1
FROM python:3.13 AS build
CMD ["sleep", "1"]
FROM python:3.13-slim
RUN <<EOF
CMD not this one
EOF
ENV LASTCALL_LOG_LEVEL=info \\
    # a comment in between
    PORT=8000
COPY . .
CMD ["lastcall", "app:app", "--host", "0.0.0.0"]
"""

ECS = {
    "family": "app",
    "containerDefinitions": [
        {"name": "db", "image": "postgres:17"},
        {
            "name": "app",
            "image": "app:1",
            "command": ["lastcall", "app:app", "--host", "0.0.0.0"],
            "environment": [{"name": "LASTCALL_LOG_LEVEL", "value": "info"}],
            "stopTimeout": 35,
        },
    ],
}

FLY = """\
app = "app"
kill_signal = "SIGTERM"
kill_timeout = "35s"

[processes]
app = "lastcall app:app --host 0.0.0.0"
worker = "python worker.py"

[http_service]
internal_port = 8000
"""

SUPERVISOR = """\
[supervisord]
nodaemon=true

[program:app]
command=lastcall app:app --uds /run/app.sock --root-path %(ENV_ROOT)s ; the server
environment=ROOT="/api",LASTCALL_LOG_LEVEL='info'
stopwaitsecs=35
stopasgroup=false

[program:worker]
command=python worker.py
"""

GOOD = {
    "Dockerfile": DOCKERFILE,
    "task.json": json.dumps(ECS),
    "fly.toml": FLY,
    "supervisord.conf": SUPERVISOR,
}


@pytest.fixture(autouse=True)
def sound_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(facts_machine, "look", lambda: Machine(nofile=65536, somaxconn=4096))


def ask(name: str, text: str, option: str = "--manifest", *words: str) -> dict[str, dict[str, Any]]:
    Path(name).write_text(text)
    result = CliRunner().invoke(doctor_command, ["--json", option, name, *words])
    assert result.exit_code in (0, 1), result.output
    return {one["id"]: one for one in json.loads(result.output)["findings"]}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_has_no_findings(name: str) -> None:
    assert ask(name, GOOD[name]) == {}


@pytest.mark.parametrize(
    ("text", "launch", "signal"),
    [
        ('''FROM x AS Base
           ENV LASTCALL_PORT=80
           STOPSIGNAL SIGKILL
           CMD ["lastcall", "app:app"]
           FROM --platform=$TARGET base AS next
           ENV LASTCALL_HOST=::
           FROM y
           CMD ["other"]
           FROM next''', ({"LASTCALL_PORT": "80", "LASTCALL_HOST": "::"}, ["app:app"]), "SIGKILL"),
        ('''FROM x AS base
           ENTRYPOINT ["lastcall"]
           CMD ["a:app"]
           FROM base
           CMD ["b:app"]''', ({}, ["b:app"]), "SIGTERM"),
        ('''FROM x AS base
           CMD ["a:app"]
           FROM base
           ENTRYPOINT ["lastcall", "b:app"]''', ({}, ["b:app"]), "SIGTERM"),
        ('''FROM x
           CMD ["a:app"]
           ENTRYPOINT ["lastcall"]''', ({}, ["a:app"]), "SIGTERM"),
        ('''FROM x AS base
           CMD ["lastcall", "a:app"]
           FROM x''', None, ""),
    ],
    ids=["of a stage of a stage", "a command for its entry point", "an entry point forgets what was inherited",
         "but not its own stage's command", "of an image that is not here"],
)  # fmt: skip
def test_a_stage_has_what_the_one_before_it_says(
    text: str, launch: tuple[dict[str, str], list[str]] | None, signal: str
) -> None:
    images = deployments_of(text, "Dockerfile")
    if launch is None:
        assert images == ()
    else:
        ((image, found),) = [(one, one.launch) for one in images]
        assert found is not None
        assert (dict(found.env), list(found.words), image.signal) == (*launch, signal)


@pytest.mark.parametrize(
    ("name", "old", "new", "finding", "line"),
    [
        ("Dockerfile", '["lastcall", "app:app", "--host", "0.0.0.0"]', "lastcall app:app --host 0.0.0.0",
         "shell-in-front", "exec lastcall app:app --host 0.0.0.0"),
        ("Dockerfile", "CMD [\"lastcall", "STOPSIGNAL SIGKILL\nCMD [\"lastcall", "stop-signal", "STOPSIGNAL SIGTERM"),
        ("Dockerfile", "CMD [\"lastcall", "STOPSIGNAL 2\nCMD [\"lastcall", "stop-signal", "STOPSIGNAL SIGTERM"),
        ("Dockerfile", ', "--host", "0.0.0.0"', "", "loopback", "--host 0.0.0.0"),
        ("Dockerfile", "lastcall", "uvicorn", "stop-unbounded", "--timeout-graceful-shutdown 20"),
        ("Dockerfile", 'CMD ["lastcall", ', 'ENTRYPOINT ["python", "-X", "dev", "-m", "lastcall"]\nCMD [',
         "debug-python", None),
        ("Dockerfile", 'CMD ["lastcall', 'CMD ["./start.sh', "no-server", None),
        ("task.json", '"stopTimeout": 35', '"stopTimeout": 10', "stop-timeout", '"stopTimeout": 29'),
        ("task.json", ', "--host", "0.0.0.0"', "", "loopback", "--host 0.0.0.0"),
        ("fly.toml", 'kill_signal = "SIGTERM"\n', "", "stop-signal", 'kill_signal = "SIGTERM"'),
        ("fly.toml", 'kill_timeout = "35s"\n', "", "stop-timeout", "kill_timeout = 29"),
        ("supervisord.conf", "stopwaitsecs=35\n", "", "stop-timeout", "stopwaitsecs=29"),
        ("supervisord.conf", "stopwaitsecs=35", "stopwaitsecs=35\nstopsignal=KILL", "stop-signal", "stopsignal=TERM"),
        ("supervisord.conf", "command=lastcall", "command=bash -c 'cd /srv; lastcall'\nx=", "shell-in-front", None),
    ],
)  # fmt: skip
def test_one_thing_wrong_is_found(name: str, old: str, new: str, finding: str, line: str | None) -> None:
    assert GOOD[name].count(old) >= 1
    found = ask(name, GOOD[name].replace(old, new))
    assert finding in found, found
    if line is not None:
        assert line in found[finding]["lines"]


def test_a_task_as_the_command_line_prints_it() -> None:
    assert ask("task.json", json.dumps({"taskDefinition": ECS})) == {}


def test_an_image_that_says_nothing_is_judged_by_its_timer() -> None:
    silent = {"containerDefinitions": [{"name": "db", "image": "docker.io/library/redis:8"}, {"image": "me/app"}]}
    assert ask("task.json", json.dumps(silent)) == {}, "30 s is enough for lastcall"
    assert set(ask("fly.toml", 'app = "app"\n[http_service]\ninternal_port = 1\n')) == {"stop-signal", "stop-timeout"}


@pytest.mark.parametrize(
    ("option", "name", "text", "sentence"),
    [
        ("--manifest", "Procfile", "web: uvicorn app:app\n", "this is a Procfile, which the doctor cannot read"),
        ("--proxy", "Caddyfile", "example.org {\n  reverse_proxy :8000\n}\n", "this is a Caddyfile, which"),
        ("--proxy", "front.conf", ":80 {\n  reverse_proxy :8000\n}\n", "this is a Caddyfile, which the doctor"),
        ("--proxy", "traefik.yml", "entryPoints:\n  web: {}\n", "this is Traefik's configuration, which"),
        ("--manifest", "traefik.toml", "[entryPoints]\n", "this is Traefik's configuration, which the doctor"),
        ("--manifest", "app.service", "[Service]\nExecStart=x\n", "this is a systemd unit file: give it to --unit"),
        ("--unit", "Dockerfile", "FROM x\n", "give it to --manifest"),
        ("--unit", "super.conf", "[program:x]\ncommand=x\n", "give it to --manifest"),
        ("--manifest", "nginx.conf", "server {\n}\n", "this looks like nginx: give it to --proxy"),
        ("--manifest", "Dockerfile", "RUN x\n", "this is no Dockerfile: it has no FROM"),
        ("--manifest", "Dockerfile", "FROM x\nCMD ['a']\n", "Dockerfile:2: expected a list of texts in double quotes"),
        ("--manifest", "Dockerfile", "FROM x\n???\n", "Dockerfile:2: expected an instruction of a Dockerfile"),
        ("--manifest", "task.json", '{"containerDefinitions": 1}', "has to be a list of containers"),
        ("--manifest", "task.json", '{"containerDefinitions": [{"stopTimeout": "1"}]}', "stopTimeout has to be"),
        ("--manifest", "task.json", '{"containerDefinitions": [', "this is not JSON"),
        ("--manifest", "fly.toml", "kill_timeout = [", "this is not TOML"),
        ("--manifest", "fly.toml", 'kill_timeout = "soon"', "kill_timeout: 'soon' is not usable"),
        ("--manifest", "s.conf", "[program:x]\nstopwaitsecs=soon\n", "stopwaitsecs=soon of x is not usable"),
        ("--manifest", "s.conf", "[program:x]\ncommand='\n", "expected matching quotes"),
        ("--manifest", "s.conf", "x\n[program:x]\n", "this is no configuration"),
    ],
)
def test_what_cannot_be_read_says_so(option: str, name: str, text: str, sentence: str) -> None:
    Path(name).write_text(text)
    result = CliRunner().invoke(doctor_command, [option, name])
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert "Traceback" not in result.output


# Compose and the database


COMPOSE = """\
services:
  db:
    image: postgres:17
  api:
    image: registry.example.org/me/api:3
    command: ./start.sh
"""


def test_the_database_of_a_compose_file_is_not_blamed_for_the_api() -> None:
    assert list(ask("compose.yaml", COMPOSE)) == ["no-server"]
    silent = ask("compose.yaml", COMPOSE.replace("    command: ./start.sh\n", ""))
    assert silent["stop-timeout"]["where"] == "compose.yaml: service api"
    built = ask("compose.yaml", COMPOSE.replace("image: registry.example.org/me/api:3", "build: ."))
    assert list(built) == ["no-server"], "it is built here, and started by a script that is not known"
    unknown = COMPOSE.replace("postgres:17", "somebody/database")
    assert list(ask("compose.yaml", unknown)) == ["no-server"], "which of the two it is cannot be known"


def test_a_sidecar_of_a_pod_is_not_blamed_either() -> None:
    pod = {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "db", "image": "redis:8"}]}}
    assert list(ask("pod.json", json.dumps(pod))) == ["no-server"]


@pytest.mark.parametrize(
    ("image", "known"),
    [
        ("postgres", True),
        ("docker.io/library/postgres:17-alpine", True),
        ("quay.io:5000/minio/minio@sha256:00", True),
        ("me/api:postgres", False),
        ("postgres-backup-api", False),
        ("", False),
    ],
)
def test_images_that_hold_no_server_of_ours(image: str, known: bool) -> None:
    assert is_infrastructure(image) is known


# who sends which signal


UNIT = """\
[Service]
Type=exec
ExecStart=/srv/.venv/bin/lastcall app:app --uds /run/app.sock
ExecStop={stop}
KillMode=mixed
TimeoutStopSec=35
Restart=on-failure
LimitNOFILE=65536
"""


@pytest.mark.parametrize(
    ("command", "signal"),
    [
        ("/bin/kill -KILL $MAINPID", "SIGKILL"),
        ("/bin/kill -9 $MAINPID", "SIGKILL"),
        ("/usr/bin/kill -s KILL $MAINPID", "SIGKILL"),
        ("/usr/bin/kill --signal=SIGKILL $MAINPID", "SIGKILL"),
        ("/bin/sh -c 'sleep 1; kill -INT $MAINPID'", "SIGINT"),
        ("/usr/bin/pkill -9 -f uvicorn", "SIGKILL"),
        ("-/usr/bin/killall -q -sQUIT lastcall", "SIGQUIT"),
    ],
)
def test_a_stop_command_that_sends_another_signal(command: str, signal: str) -> None:
    found = ask("app.service", UNIT.format(stop=command), "--unit")
    assert list(found) == ["stop-signal"]
    assert f"The server is stopped by {signal} (ExecStop)" in found["stop-signal"]["text"]
    assert found["stop-signal"]["severity"] == ("warning" if signal == "SIGINT" else "error")
    assert found["stop-signal"]["lines"] == ["ExecStop="]


@pytest.mark.parametrize("command", ["/bin/kill -TERM $MAINPID", "/bin/kill $MAINPID", "/srv/bin/deregister", ""])
def test_a_stop_command_that_does_no_harm(command: str) -> None:
    assert ask("app.service", UNIT.format(stop=command), "--unit") == {}


def test_a_hook_that_kills() -> None:
    container = {
        "name": "app",
        "command": ["lastcall", "app:app", "--host", "0.0.0.0", "--drain-delay", "5", "--health-path", "/-"],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 8000}},
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "kill -9 1"]}}},
    }
    spec = {"terminationGracePeriodSeconds": 40, "containers": [container]}
    found = ask("pod.json", json.dumps({"kind": "Pod", "metadata": {"name": "p"}, "spec": spec}))
    assert "stopped by SIGKILL (preStop)" in found["stop-signal"]["text"]
    assert found["stop-signal"]["lines"] == []


def test_signals_of_commands() -> None:
    assert signal_sent(["sleep", "5"]) == ""
    assert signal_sent(["kill", "1"]) == "SIGTERM"
    assert signal_sent(["kill", "-15", "1"]) == "SIGTERM"


def test_instructions_of_a_dockerfile() -> None:
    text = "# escape=`\nFROM x\nRUN a `\n  # note\n  b\nCOPY <<'A' <<B /x\nCMD no\nA\nCMD no\nB\nCMD c\n"
    assert [(number, name) for number, name, _ in instructions(text, "f")] == [
        (2, "FROM"),
        (3, "RUN"),
        (6, "COPY"),
        (11, "CMD"),
    ]


# other servers' units, by their timers


@pytest.mark.parametrize(
    ("command", "seconds", "lines"),
    [
        ("uvicorn a:b", 30, ["--timeout-graceful-shutdown 20"]),
        ("uvicorn a:b --timeout-graceful-shutdown 60", 30, ["TimeoutStopSec=61"]),
        ("gunicorn a:b", 20, ["TimeoutStopSec=31"]),
        ("hypercorn a:b --graceful-timeout 40", 90, ["TimeoutStopSec=101"]),
        ("granian --interface asgi a:b", 30, ["--workers-kill-timeout 20"]),
        ("granian --interface asgi a:b --workers-kill-timeout 1m", 30, ["TimeoutStopSec=61"]),
    ],
)
def test_units_of_other_servers_are_judged_by_their_timers(command: str, seconds: int, lines: list[str]) -> None:
    unit = UNIT.replace("lastcall app:app --uds /run/app.sock", command).replace("TimeoutStopSec=35", "")
    found = ask("app.service", unit.format(stop="") + f"TimeoutStopSec={seconds}\n", "--unit")
    assert list(found) == ["stop-timeout"]
    assert found["stop-timeout"]["lines"] == lines


def test_variables_give_options_as_well() -> None:
    unit = UNIT.replace("lastcall app:app --uds /run/app.sock", "{command}").replace("ExecStop={stop}", "{env}")
    for command, env in (
        ("uvicorn a:b", "Environment=UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN=20"),
        ("granian a:b", "Environment=GRANIAN_WORKERS_KILL_TIMEOUT=20s"),
        ("gunicorn a:b", 'Environment="GUNICORN_CMD_ARGS=--graceful-timeout 20"'),
    ):
        assert ask("app.service", unit.format(command=command, env=env), "--unit") == {}, command


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--unit", "--manifest", "--proxy"])
def test_a_pipe_is_read_once(option: str) -> None:
    text = {"--unit": UNIT.format(stop="/bin/kill -9 $MAINPID"), "--manifest": DOCKERFILE, "--proxy": "server {\n"}
    done = subprocess.run(
        [sys.executable, "-m", "lastcall_doctor", option, "/dev/stdin"],
        input=text[option],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    said = {"--unit": "error stop-signal", "--manifest": "No findings", "--proxy": '"}" of server in line 1'}
    assert said[option] in done.stdout + done.stderr

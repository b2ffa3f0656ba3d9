"""``lastcall migrate``: what is printed for other servers' commands starts, and what is not understood is said."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from lastcall.cli.flags import given_flags
from lastcall.cli.main import EXAMPLES, main, serve_command
from lastcall.cli.migrate import DIFFERENCES, migrate, translate
from lastcall.cli.migrate_granian import FLAGS as GRANIAN
from lastcall.cli.migrate_gunicorn import FLAGS as GUNICORN
from lastcall.cli.migrate_hypercorn import FLAGS as HYPERCORN
from lastcall.cli.translation import table_flags
from lastcall.config import Config
from lastcall.config.options import OPTIONS

PEERS = {"gunicorn": GUNICORN, "hypercorn": HYPERCORN, "granian": GRANIAN}
WORKER = "-k uvicorn.workers.UvicornWorker"
VALUES = {
    "N": "2",
    "FILE": "/run/x.pid",
    "PORT": "80",
    "LEVEL": "debug",
    "APP": "app:app",
    "BIND": "127.0.0.1:80",
    "GRACE": "5",
    "DIR": "/srv",
}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to be in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    return tmp_path


def run(command: str) -> Result:
    return CliRunner().invoke(migrate, ["--", *shlex.split(command)])


def line_of(command: str) -> str:
    """The first line, which is the command; it is checked that lastcall takes it."""
    result = run(command)
    assert result.exit_code == 0, result.output
    line = result.output.splitlines()[0]
    check(line)
    return line


def check(line: str) -> Config:
    """What lastcall makes of the words behind its name, where every variable of the shell has a value that fits."""
    words = shlex.split(
        re.sub(r"\$(\w+|\{\w+(:-\w*)?\})", lambda it: VALUES[it[1].strip("{}").partition(":")[0]], line)
    )
    before, words = words[: words.index("lastcall")], words[words.index("lastcall") + 1 :]
    variables = dict(word.split("=", 1) for word in before if "=" in word)
    context = serve_command.make_context("lastcall", words)
    config = Config.from_command(context.params["app"], given_flags(context, context.params), variables)
    assert not [text for text in config.warnings if "variable" in text]
    return config


def left_out(command: str) -> dict[str, str]:
    lines = run(command).output.partition("\nLeft out:\n")[2].partition("\n\n")[0].splitlines()
    return dict(line.strip().split(": ", 1) for line in lines if line)


def refused(command: str) -> str:
    result = run(command)
    assert result.exit_code == 2
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output.partition("Error: ")[2].strip()


# -- uvicorn ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("uvicorn app:app", "lastcall app:app"),
        ("uvicorn --host 0.0.0.0 app:app --port=80", "lastcall app:app --host 0.0.0.0 --port 80"),
        ("uvicorn app:make --factory --no-access-log", "lastcall app:make --factory --no-access-log"),
        ("uvicorn app:app --workers 1 --http h11 --no-proxy-headers", "lastcall app:app --workers 1"),
        ("uvicorn app:app --workers 4 --reload", "lastcall app:app --workers 4 --reload"),
        ("uvicorn app:app --header 'a: b' --header x:y", "lastcall app:app --header 'a: b' --header x:y"),
        ("uvicorn app:app --root-path '/a b'", "lastcall app:app --root-path '/a b'"),
        ("python3 -m uvicorn app:app", "python3 -m lastcall app:app"),
        ("exec /srv/venv/bin/uvicorn app:app", "exec lastcall app:app"),
        ("uv run uvicorn app:app", "uv run lastcall app:app"),
        ("DEBUG='a b' uvicorn app:app", "DEBUG='a b' lastcall app:app"),
        ("UVICORN_PORT=80 uvicorn app:app", "LASTCALL_PORT=80 lastcall app:app"),
        ("WEB_CONCURRENCY=4 uvicorn app:app", "WEB_CONCURRENCY=4 lastcall app:app"),
        ("UVICORN_WORKERS=4 UVICORN_RELOAD=1 A=b uvicorn app:app",
         "LASTCALL_WORKERS=4 LASTCALL_RELOAD=1 A=b lastcall app:app"),
        ("UVICORN_HEADERS='a:b c:d' uvicorn app:app", "lastcall app:app --header a:b --header c:d"),
        ("UVICORN_PORT= UVICORN_LOOP=uvloop uvicorn app:app", "LASTCALL_LOOP=uvloop lastcall app:app"),
        ("env A=b UVICORN_PORT=80 uvicorn app:app", "env A=b LASTCALL_PORT=80 lastcall app:app"),
        ("exec /usr/bin/env -i UVICORN_RELOAD=1 A=b uvicorn app:app",
         "exec /usr/bin/env -i LASTCALL_RELOAD=1 A=b lastcall app:app"),
        ("uvicorn app:app --port $PORT", "lastcall app:app --port $PORT"),
        ("uvicorn $APP --port ${PORT:-8000} --workers $N", "lastcall $APP --port ${PORT:-8000} --workers $N"),
        ("uvicorn app:app --root-path '/a b/$DIR'", 'lastcall app:app --root-path "/a b/$DIR"'),
        ("uvicorn app:app --header 'price: 5$'", "lastcall app:app --header 'price: 5$'"),
        ("UVICORN_PORT=$PORT uvicorn app:app --log-level $LEVEL",
         "LASTCALL_PORT=$PORT lastcall app:app --log-level $LEVEL"),
        ("'uvicorn app:app --port 80'", "lastcall app:app --port 80"),
    ],
)  # fmt: skip
def test_uvicorn(command: str, line: str) -> None:
    assert line_of(command) == line


def test_what_is_left_out_has_a_reason_of_the_table() -> None:
    options = "--workers 4 --http2 --ssl-keyfile-password hush --daemon"
    found = left_out(f"uvicorn app:app {options}")
    assert OPTIONS["http2"].only is not None
    assert found["--http2"] == OPTIONS["http2"].only.reason
    assert set(found) == {"--http2", "--ssl-keyfile-password …", "--daemon"}


def test_a_variable_is_treated_as_its_flag() -> None:
    command = "uvicorn app:app"
    variables = "UVICORN_WS=wsproto UVICORN_SSL_KEYFILE_PASSWORD=hush UVICORN_HTTP2=1 FORWARDED_ALLOW_IPS='*'"
    found = left_out(f"{variables} {command}")
    assert set(found) == {
        "UVICORN_SSL_KEYFILE_PASSWORD=…", "UVICORN_HTTP2=1", "FORWARDED_ALLOW_IPS=*"
    }  # fmt: skip
    assert left_out(f"env A=b {variables} {command}") == found
    assert "hush" not in run(f"{variables} {command}").output
    assert "UVICORN_PORT" in refused(f"UVICORN_PORT=many {command}")
    assert "UVICORN_PORT=80" in left_out(f"UVICORN_PORT=80 gunicorn {WORKER} app:app"), "it does not read it"
    assert "WEB_CONCURRENCY=4" in left_out(f"gunicorn {WORKER} -e WEB_CONCURRENCY=4 app:app")


def test_one_reason_for_one_thing() -> None:
    commands = ("uvicorn app:app", f"gunicorn {WORKER} app:app")
    reasons = {left_out(f"{command} --forwarded-allow-ips x")["--forwarded-allow-ips x"] for command in commands}
    reasons.add(left_out("FORWARDED_ALLOW_IPS=x uvicorn app:app")["FORWARDED_ALLOW_IPS=x"])
    assert OPTIONS["proxy_headers"].only is not None
    assert reasons == {OPTIONS["proxy_headers"].only.reason}


def test_a_file_that_is_not_here_yet() -> None:
    """The command is for another machine, or for later."""
    assert run("uvicorn app:app --env-file .env").output.splitlines()[0] == "lastcall app:app --env-file .env"
    assert "--env-file .env" in run("uvicorn app:app --env-file .env").output.partition("What changes:")[2]
    assert "--ssl-keyfile key.pem" in left_out("uvicorn app:app --ssl-keyfile key.pem")
    Path(".env").touch()
    assert line_of("uvicorn app:app --env-file .env") == "lastcall app:app --env-file .env"
    assert ".env" not in run("uvicorn app:app --env-file .env").output.partition("What changes:")[2]


@pytest.mark.parametrize("command", [f"gunicorn {WORKER} app:app", "fastapi run", "fastapi dev --no-reload"])
def test_the_variable_port_is_said(command: str) -> None:
    write("main.py")
    assert "$PORT" in run(command).output
    option = "-b :80" if command.startswith("gunicorn") else "--port 80"
    assert "$PORT" not in run(f"{command} {option}").output


@pytest.mark.parametrize("command", [
    "uvicorn app",
    "uvicorn app:app --uds /a --port 80 --bind :80",
    "uvicorn app:app --drain-close /a --drain-finish /a",
    "uvicorn app:app --header a --limit-concurrency 0",
    "uvicorn app:app --app-dir a --app-dir b --reload-dir c --fd 3 --host x",
    "UVICORN_BIND=:80 uvicorn app:app --port 80",
    "uvicorn app:app --uds unix:/a",
    "uvicorn app:app --bind 127.0.0.1:80 --port $PORT",
    "uvicorn app:app --bind $BIND --port 80",
    "UVICORN_PORT=$PORT uvicorn app:app --bind 127.0.0.1:80",
    "UVICORN_UDS=unix:/a uvicorn app:app",
    f"gunicorn {WORKER} -b unix:unix:/a app:app",
    "UVICORN_FD=3 UVICORN_HOST=x UVICORN_UDS=/a uvicorn app:app",
    "UVICORN_LOG_LEVEL=DEBUG UVICORN_ENV_FILE=.env uvicorn app:app --no-use-colors",
    f"gunicorn {WORKER} -b $BIND app:app",
    f"gunicorn {WORKER} -b 0.0.0.0:$PORT,unix:/a,fd://3 $APP",
    f"gunicorn {WORKER} -b ::1 app:app",
    f"gunicorn {WORKER} -b [::1] -b a:b:c app:app",
    f"gunicorn {WORKER} -b fd://x app:app",
    f"gunicorn {WORKER} --chdir a --chdir b --pythonpath '' -t $GRACE --graceful-timeout $GRACE app:app",
    f"gunicorn {WORKER} --log-level INFO --keep-alive 0 --max-requests -1 app:app",
    f"gunicorn {WORKER} a-b:app",
    f"gunicorn {WORKER} -e LASTCALL_PORT=x -e A app:app",
    "fastapi run --port $PORT --forwarded-allow-ips '*' --app x",
    "fastapi run --host [::1]",
    "fastapi run -e app",
])  # fmt: skip
def test_what_is_printed_is_no_usage_error(command: str) -> None:
    """Whatever is asked: it is printed and lastcall takes it, or it is refused with what is wrong."""
    write("main.py")
    Path(".env").touch()
    if run(command).exit_code == 0:
        line_of(command)
    else:
        assert refused(command)


@pytest.mark.parametrize("flag", table_flags())
def test_each_option_of_the_table_is_known(flag: str) -> None:
    """What it gives starts, or it is said what is wrong with the value."""
    command = f"uvicorn app:app {flag}" + (" 1" if table_flags()[flag].takes_value else "")
    result = run(command)
    if result.exit_code == 0:
        words = shlex.split(result.output.splitlines()[0])
        assert serve_command.make_context("lastcall", words[1:]).params["app"] == "app:app"
    else:
        assert re.search(rf"{flag}(: '1')? is not usable", refused(command))


def test_differences_are_said_unless_the_command_decides() -> None:
    said = run("uvicorn app:app").output
    assert all(text in said for _, text in DIFFERENCES["uvicorn"])
    said = run("uvicorn app:app --timeout-keep-alive 5 --no-proxy-headers --loop asyncio").output
    missing = [name for name, text in DIFFERENCES["uvicorn"] if text not in said]
    assert missing == ["timeout_keep_alive", "loop", "proxy_headers"]
    said = run("hypercorn app:app --keep-alive 5").output
    assert [name for name, text in DIFFERENCES["hypercorn"] if text not in said] == ["timeout_keep_alive"]


@pytest.mark.parametrize("name", sorted({name for group in DIFFERENCES.values() for name, _ in group if name}))
def test_differences_are_about_options_that_exist(name: str) -> None:
    assert name in OPTIONS


# -- gunicorn ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("-b :80 app:app", "lastcall app:app --host 0.0.0.0 --port 80"),
        ("-b0.0.0.0 app:app", "lastcall app:app --host 0.0.0.0 --port 8000"),
        ("--bind=[::1]:80 app:app", "lastcall app:app --host ::1 --port 80"),
        ("-b unix:/run/app.sock app:app", "lastcall app:app --uds /run/app.sock"),
        ("-b fd://3 app:app", "lastcall app:app --fd 3"),
        ("-b :80 -b unix:/run/a app:app", "lastcall app:app --bind 0.0.0.0:80 --bind unix:/run/a"),
        ("-w 4 --preload --timeout 120 app:app", "lastcall app:app --timeout-worker-stall 120 --workers 4"),
        ("app", "lastcall app:application"),
        ("'app.main:make()'", "lastcall app.main:make --factory"),
        ("--keep-alive 5 --graceful-timeout 30 app:app",
         "lastcall app:app --timeout-keep-alive 5 --timeout-graceful-shutdown 30"),
        ("--max-requests 100 --max-requests-jitter 5 app:app",
         "lastcall app:app --limit-max-requests 100 --limit-max-requests-jitter 5"),
        ("--max-requests 0 app:app", "lastcall app:app"),
        ("--chdir /srv --log-level debug app:app", "lastcall app:app --chdir /srv --log-level debug"),
        ("-u www -g www -m 022 -p /run/a.pid -n shop --timeout 0 --reload app:app",
         "lastcall app:app --user www --group www --umask 022 --pidfile /run/a.pid --proc-title shop "
         "--timeout-worker-stall none --reload"),
        ("-m 18 -p $FILE -w $N app:app", "lastcall app:app --umask 022 --pidfile $FILE --workers $N"),
        ("-e A=b app:app", "A=b lastcall app:app"),
        ("-b 0.0.0.0:$PORT app:app", "lastcall app:app --host 0.0.0.0 --port $PORT"),
        ("-b :${PORT:-8000} --graceful-timeout $GRACE $APP",
         "lastcall $APP --timeout-graceful-shutdown $GRACE --host 0.0.0.0 --port ${PORT:-8000}"),
        ("-b $BIND app:app", "lastcall app:app --bind $BIND"),
        ("--pythonpath b app:app", "lastcall app:app --app-dir b"),
        ("--chdir a --pythonpath b,c app:app", "lastcall app:app --chdir a"),
    ],
)  # fmt: skip
def test_gunicorn(command: str, line: str) -> None:
    assert line_of(f"gunicorn {WORKER} --access-logfile - {command}") == line


def test_without_an_access_log_there_is_none() -> None:
    assert line_of(f"gunicorn {WORKER} app:app") == "lastcall app:app --no-access-log"


def test_directories_that_cannot_be_said() -> None:
    found = left_out(f"gunicorn {WORKER} --chdir a --pythonpath b,/c app:app")
    assert "PYTHONPATH=a/b:/c" in found["--pythonpath b,/c"]
    assert "PYTHONPATH=b:c" in left_out(f"gunicorn {WORKER} --pythonpath b,c app:app")["--pythonpath b,c"]


def test_gunicorns_variable() -> None:
    variable = f"GUNICORN_CMD_ARGS='{WORKER} --bind :80 --access-logfile -'"
    assert line_of(f"{variable} gunicorn app:app") == "lastcall app:app --host 0.0.0.0 --port 80"


def test_what_gunicorn_does_and_lastcall_does_not() -> None:
    found = left_out(f"gunicorn {WORKER} -w4 -D --certfile x --access-logfile /log app:app")
    assert set(found) == {"--daemon", "--certfile x", "the file /log"}
    Path("gunicorn.conf.py").write_text("workers = 4")
    assert "gunicorn.conf.py" in left_out(f"gunicorn {WORKER} app:app")


# -- fastapi ----------------------------------------------------------------------------------------------------------

FASTAPI = "from fastapi import FastAPI\n\nother = 1\n{name} = FastAPI(title='x')\n"


def write(path: str, name: str = "app") -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(FASTAPI.format(name=name) if name else "")


@pytest.mark.parametrize(
    ("files", "command", "line"),
    [
        (["main.py"], "run", "lastcall main:app --host 0.0.0.0"),
        (["api.py"], "dev --no-reload --port 80", "lastcall api:app --port 80"),
        (["app/main.py", "app/__init__.py"], "run", "lastcall app.main:app --host 0.0.0.0"),
        (["app/main.py"], "run", "lastcall main:app --host 0.0.0.0 --app-dir app"),
        (["src/pkg/web.py", "src/pkg/__init__.py"], "run src/pkg/web.py --host ::1",
         "lastcall pkg.web:app --host ::1 --app-dir src"),
        (["pkg/__init__.py"], "dev pkg --app thing", "lastcall pkg:thing --reload"),
        (["main.py"], "dev -e a.b:c", "lastcall a.b:c --reload"),
        (["main.py"], "run --workers 4 --proxy-headers --root-path /x",
         "lastcall main:app --workers 4 --root-path /x --host 0.0.0.0"),
    ],
)  # fmt: skip
def test_fastapi(files: list[str], command: str, line: str) -> None:
    for file in files:
        write(file)
    assert line_of(f"fastapi {command}") == line


def test_the_name_of_the_application_is_looked_up() -> None:
    write("main.py", "server")
    assert line_of("fastapi dev --no-reload") == "lastcall main:server"
    Path("main.py").write_text("from .factory import app\n")
    assert line_of("fastapi dev --no-reload") == "lastcall main:app"


def test_the_entrypoint_of_pyproject() -> None:
    write("main.py")
    Path("pyproject.toml").write_text("[tool.fastapi]\nentrypoint = 'pkg.web:api'\n")
    assert line_of("fastapi run") == "lastcall pkg.web:api --host 0.0.0.0"
    assert line_of("fastapi run main.py") == "lastcall main:app --host 0.0.0.0"


def test_fastapi_dev_reloads() -> None:
    write("main.py")
    assert line_of("fastapi dev") == "lastcall main:app --reload"
    assert line_of("fastapi dev --no-reload") == "lastcall main:app"


# -- hypercorn and granian --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("app:app", "lastcall app:app"),
        ("asgi:app", "lastcall app:app"),
        ("wsgi:app:site", "lastcall app:site --interface wsgi"),
        ("'app:make()'", "lastcall app:make --factory"),
        ("-w 4 -b 0.0.0.0:80 app:app", "lastcall app:app --workers 4 --host 0.0.0.0 --port 80"),
        ("-b :80 -b unix:/run/a app:app", "lastcall app:app --bind 0.0.0.0:80 --bind unix:/run/a"),
        ("--keep-alive 5 --graceful-timeout 3 app:app",
         "lastcall app:app --timeout-keep-alive 5 --timeout-graceful-shutdown 3"),
        ("--reload -k uvloop -p /run/a.pid --root-path /x app:app",
         "lastcall app:app --reload --loop uvloop --pidfile /run/a.pid --root-path /x"),
        ("--log-config json:log.json --max-requests 5 app:app",
         "lastcall app:app --log-config log.json --limit-max-requests 5"),
    ],
)  # fmt: skip
def test_hypercorn(command: str, line: str) -> None:
    assert line_of(f"hypercorn --access-logfile - {command}") == line


def test_what_hypercorn_does_and_lastcall_does_not() -> None:
    options = "-D --certfile x --keyfile-password hush --quic-bind :443 --server-name a -u www --read-timeout 5 --debug"
    found = left_out(f"WEB_CONCURRENCY=4 hypercorn app:app --websocket-ping-interval 5 {options}")
    assert set(found) == {
        "--daemon", "--certfile x", "--keyfile-password …", "--quic-bind :443", "--server-name a", "-u www",
        "--read-timeout 5", "--debug", "WEB_CONCURRENCY=4",
    }  # fmt: skip
    assert "hush" not in run(f"hypercorn app:app {options}").output
    assert "--no-access-log" in line_of("hypercorn app:app")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("app:app", "lastcall app:app"),
        ("app", "lastcall app:app"),
        ("--workers 4 --host 0.0.0.0 --port 80 app:app", "lastcall app:app --workers 4 --host 0.0.0.0 --port 80"),
        ("--uds /run/a --uds-permissions 660 app:app", "lastcall app:app --bind unix:/run/a,mode=660"),
        ("--uds /run/a app:app", "lastcall app:app --uds /run/a"),
        ("--workers-lifetime 1h30m --workers-max-rss 512 app:app",
         "lastcall app:app --limit-worker-age 5400 --limit-worker-rss 512M"),
        ("--workers-kill-timeout 30 --http1-header-read-timeout 5000 app:app",
         "lastcall app:app --timeout-graceful-shutdown 30 --timeout-header 5"),
        ("--reload --reload-paths src --reload-tick 100 app:app",
         "lastcall app:app --reload --reload-dir src --reload-delay 0.1"),
        ("--factory --working-dir /srv --process-name shop --pid-file /run/a.pid app:make",
         "lastcall app:make --factory --chdir /srv --proc-title shop --pidfile /run/a.pid"),
        ("--log-level warn --url-path-prefix /x --no-http1-keep-alive app:app",
         "lastcall app:app --log-level warning --root-path /x --timeout-keep-alive 0"),
        ("--loop uvloop --http 1 --no-ws app:app", "lastcall app:app --loop uvloop --ws none"),
    ],
)  # fmt: skip
def test_granian(command: str, line: str) -> None:
    assert line_of(f"granian --interface asgi --access-log {command}") == line.replace(
        "lastcall app:make", "lastcall app:make --access-log"
    ).replace("lastcall app:app", "lastcall app:app --access-log")


def test_what_granian_does_and_lastcall_does_not() -> None:
    options = "--runtime-threads 4 --http2-max-frame-size 20000 --metrics --ssl-keyfile-password hush --http 2"
    found = left_out(f"GRANIAN_PORT=80 granian --interface asginl app:app {options}")
    assert set(found) == {
        "--runtime-threads 4", "--http2-max-frame-size 20000", "--metrics", "--ssl-keyfile-password …", "--http 2",
        "GRANIAN_PORT=80",
    }  # fmt: skip
    assert "hush" not in run(f"granian --interface asginl app:app {options}").output
    assert "--lifespan off" in line_of("granian --interface asginl app:app")


@pytest.mark.parametrize(
    ("program", "name"),
    [(program, name) for program, flags in PEERS.items() for name in flags],
)
def test_each_flag_of_the_others_is_known(program: str, name: str) -> None:
    """What it gives starts, or it is said what is wrong with the value."""
    Path("1").touch()  # for those that name a file
    start = {"granian": "granian --interface asgi", "gunicorn": f"gunicorn {WORKER}"}.get(program, program)
    command = f"{start} app:app {name}" + (" 1" if PEERS[program][name].takes_value else "")
    if run(command).exit_code == 0:
        line_of(command)
    else:
        assert refused(command)


# -- not understood ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("daphne app:app", "daphne"),
        ("hypercorn", "module:attribute"),
        ("hypercorn -k trio app:app", "trio"),
        ("hypercorn -c file:conf.py app:app", "conf.py"),
        ("hypercorn --what app:app", "--what"),
        ("hypercorn -w 0 app:app", "workers"),
        ("granian app:app", "--interface asgi"),
        ("granian --interface rsgi app:app", "RSGI"),
        ("granian --interface asgi --workers many app:app", "workers"),
        (f"gunicorn {WORKER} -m rwx app:app", "--umask"),
        (f"gunicorn {WORKER} -w 0 app:app", "workers"),
        ("WEB_CONCURRENCY=many uvicorn app:app", "WEB_CONCURRENCY"),
        ("uvicorn", "module:attribute"),
        ("uvicorn app:app other:app", "'other:app'"),
        ("uvicorn app:app --prot 80", "--prot"),
        ("uvicorn app:app --port", "--port needs a value"),
        ("uvicorn app:app --port many", "--port"),
        ("uvicorn app:app --factory=1", "--factory takes no value"),
        ("gunicorn app:app", "-k uvicorn.workers.UvicornWorker"),
        ("gunicorn -k gevent app:app", "gevent"),
        (f"gunicorn {WORKER} -c conf.py app:app", "conf.py"),
        (f"gunicorn {WORKER} --what app:app", "--what"),
        (f"gunicorn {WORKER} 'app:make(1)'", "app:make(1)"),
        (f"gunicorn {WORKER}", "module:attribute"),
        ("fastapi login", "fastapi login"),
        ("fastapi run", "main.py"),
        ("fastapi run nothing.py", "nothing.py"),
    ],
)
def test_what_is_not_understood_is_said(command: str, named: str) -> None:
    assert named in refused(command)


def test_an_application_that_cannot_be_seen() -> None:
    write("main.py", "")
    assert "--app" in refused("fastapi run")


def test_it_is_a_command_of_lastcall(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["migrate", "uvicorn", "app:app", "--port", "80"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.splitlines()[0] == "lastcall app:app --port 80"


def test_it_is_in_the_help() -> None:
    said = CliRunner().invoke(serve_command, ["--help"], prog_name="lastcall").output
    top = said.partition("Application:")[0]
    for word in ("migrate", "drill", "doctor", "once", "lastcall main:app"):
        assert word in top, "before the options, which are many"


def test_examples_of_the_help_are_taken() -> None:
    for example, _ in EXAMPLES:
        words = shlex.split(example)
        if words[1] == "migrate":
            assert translate(words[3:])[0] == "lastcall main:app --port 80"
        else:
            check(example)
    assert isinstance(migrate, click.Command)

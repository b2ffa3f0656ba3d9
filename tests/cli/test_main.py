"""The command: flags, help, exit codes. What it would serve is caught just before the server."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from lastcall import __version__
from lastcall.base import early_exit
from lastcall.base.errors import ConfigError, LastcallError, StartupError
from lastcall.cli.main import main, serve_command
from lastcall.config import Config
from lastcall.config.directory import enter_directory
from lastcall.config.options import GROUPS, OPTIONS, Option


class Server:
    """Stands in for ``lastcall.server.process`` and the parent's: keeps the configuration, ends as told."""

    def __init__(self) -> None:
        self.config: Config | None = None
        self.outcome: int | BaseException = 0
        self.collecting = False
        self.frozen = 0

    def run_process(self, config: Config, *, tell: Callable[[LastcallError], int], final: bool) -> int:
        assert final, "the command is all that the process does"
        self.config = config
        self.collecting = gc.isenabled()
        self.frozen = gc.get_freeze_count()
        if isinstance(self.outcome, LastcallError):
            return tell(self.outcome)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in list(os.environ):
        if name.startswith("LASTCALL_") or name in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(os.getcwd())  # and back again, where --chdir has gone elsewhere
    server = Server()
    process = ModuleType("lastcall.server.process")
    process.run_process = server.run_process  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lastcall.server", ModuleType("lastcall.server"))
    monkeypatch.setitem(sys.modules, "lastcall.server.process", process)
    supervisor = ModuleType("lastcall.supervisor.process")
    supervisor.run_supervisor = server.run_process  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lastcall.supervisor", ModuleType("lastcall.supervisor"))
    monkeypatch.setitem(sys.modules, "lastcall.supervisor.process", supervisor)
    yield server
    gc.unfreeze()


def invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(serve_command, arguments, env=dict(environ), prog_name="lastcall")


@pytest.fixture
def serve(server: Server) -> Callable[..., Config]:
    """Run the command, which has to succeed without a word, and return its configuration."""

    def run(*arguments: str, **environ: str) -> Config:
        result = invoke(*arguments, **environ)
        assert (result.exit_code, result.output) == (0, "")
        assert server.config is not None
        return server.config

    return run


def test_an_application_alone(serve: Callable[..., Config]) -> None:
    config = serve("main:app")
    assert config.options.app.app == "main:app"
    assert config.options.app.app_dir == "", "the current directory is importable, as with uvicorn"
    assert config.options.net == Config("main:app").options.net
    assert config.warnings == []


def test_flags_win_over_variables(serve: Callable[..., Config]) -> None:
    config = serve("main:app", "--port", "1", LASTCALL_PORT="2", LASTCALL_BACKLOG="3", LASTCALL_ACCESS_LOG="no")
    assert (config.port, config.backlog, config.access_log) == (1, 3, False)
    assert serve("main:app", "--access-log", LASTCALL_ACCESS_LOG="no").access_log is True


def test_the_application_from_the_environment(serve: Callable[..., Config]) -> None:
    assert serve(LASTCALL_APP="main:app").app == "main:app"
    assert serve("other:app", LASTCALL_APP="main:app").app == "other:app"


def test_repeated_flags(serve: Callable[..., Config]) -> None:
    config = serve("main:app", "--bind", "a:1", "--bind", "unix:/x,mode=0600", "--header", "A: b", "--header", "c:d")
    assert [str(bind) for bind in config.options.net.binds] == ["a:1", "unix:/x"]
    assert config.options.net.binds[1].mode == 0o600
    assert config.options.http.headers == ((b"a", b"b"), (b"c", b"d"))
    config = serve("main:app", "--drain-close", "/a*", "--drain-finish", "/ab", "--drain-close", "*.log")
    assert (config.options.stop.close, config.options.stop.finish) == (("/a*", "*.log"), ("/ab",))


# A value other than the default for each kind of flag that takes one.
SAMPLES: dict[str, str] = {
    "app_dir": "src",
    "asgi_spec": "2.3",
    "bind": "a:1",
    "canary_share": "0.1",
    "chdir": tempfile.gettempdir(),
    "drain_close": "/events/*",
    "drain_finish": "/events/last",
    "drain_report": os.path.join(tempfile.gettempdir(), "report.json"),
    "driver": "asyncio",
    "env_file": __file__,
    "forwarded_allow_ips": "*",
    "headers": "a: b",
    "health_path": "/health",
    "host": "b",
    "http": "h11",
    "interface": "asgi2",
    "lifespan": "off",
    "lifespan_died": "stop",
    "limit_body": "7K",
    "log_config": "log.ini",
    "log_level": "trace",
    "loop": "a:b",
    "refuse_event_streams": "503",
    "reload_dirs": "src",
    "reload_excludes": "x",
    "reload_includes": "y",
    "root_path": "/r",
    "smoke": "/health=204",
    "static": "/static=/",
    "uds": "/x",
    "ws": "none",
    "ws_per_message_deflate": "false",
}


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS.values() if o.flags and (o.only is None or o.name in SAMPLES)], ids=lambda o: o.name
)
def test_every_flag_reaches_its_option(option: Option, serve: Callable[..., Config]) -> None:
    parent = ["--supervise"] if option.group in ("Workers", "Canary") and option.name != "supervise" else []
    if not option.kind.metavar:
        flag = option.flags[-1] if option.default else option.flags[0]
        assert getattr(serve("main:app", *parent, flag), option.name) is not option.default
        return
    text = SAMPLES.get(option.name, "7")
    assert getattr(serve("main:app", *parent, option.flags[0], text), option.name) == option.kind.read(text)
    assert option.kind.read(text) != option.default


def test_everything_else_is_looked_for_in_chdir(tmp_path: Path, serve: Callable[..., Config]) -> None:
    (tmp_path / "current").mkdir()
    (tmp_path / "now").symlink_to("current")
    (tmp_path / "current" / ".env").touch()
    os.chdir(tmp_path)
    config = serve("main:app", "--env-file", ".env", "--drain-report", "r.json", LASTCALL_CHDIR="now")
    assert os.path.samefile(os.getcwd(), tmp_path / "current")
    assert config.options.process.chdir == str(tmp_path / "now"), "the link, which may lead elsewhere next time"
    assert config.options.stop.report == str(tmp_path / "current" / "r.json")
    os.chdir("/")
    enter_directory(dict(config.origin.given)["chdir"].raw, "chdir")  # as another process does first
    assert Config.from_origin(config.origin, {}).options.process == config.options.process


@pytest.mark.parametrize("text", ["/nowhere/at/all", __file__, "a\0b"])
def test_a_directory_that_cannot_be_entered(text: str, server: Server) -> None:
    result = invoke("main:app", "--chdir", text)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --chdir: ")
    assert result.stderr.count("\n") == 1
    assert server.config is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "x"], "--port: 'x'"),
        (["--bind", "a:1", "--port", "1"], "--port: '1'"),
        (["--bind", "a:1", "--bind", "b"], "--bind: 'b'"),
        (["--timeout-lifespan-shutdown", "0"], "--timeout-lifespan-shutdown: '0'"),
        (["--timeout-header", "nan"], "--timeout-header: 'nan'"),
        (["--drain-delay", "none"], "--drain-delay: 'none'"),
        (
            ["--drain-farewell", "none"],
            "--drain-farewell: 'none'",
        ),
        (["--drain-close", ""], "--drain-close: ''"),
        (["--drain-close", "/a", "--drain-finish", "/a"], "--drain-finish: '/a'"),
        (["--drain-report", "/no/r.json"], "--drain-report: '/no/r.json'"),
        (["--health-path", "/"], "--health-path: '/'"),
        (["--workers", "0"], "--workers: '0'"),
        (["--canary-share", "1"], "--canary-share: '1'"),
        (["--smoke", "docs"], "--smoke: 'docs'"),
        (["--umask", "8"], "--umask: '8'"),
        (["--daemon"], "systemd"),
        (["-D"], "--daemon"),
        (["--proxy-headers"], "--proxy-headers"),
        (["--ws", "ours"], "--ws"),
        (["--ws-max-size", "0"], "--ws-max-size: '0'"),
        (["--ssl-certfile", "cert.pem"], "TLS"),
        (["--header", "Content-Length: 1"], "--header"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(arguments: list[str], message: str, server: Server) -> None:
    result = invoke("main:app", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert server.config is None


def test_several_wrong_values_are_a_line_each(server: Server) -> None:
    result = invoke("main", "--workers", "0", "--umask", "9", LASTCALL_PORT="x")
    assert result.exit_code == 2
    names = [line.split()[:2] for line in result.stderr.splitlines()]
    assert names == [["Error:", "APP:"], ["Error:", "LASTCALL_PORT:"], ["Error:", "--workers:"], ["Error:", "--umask:"]]
    assert server.config is None


def test_a_wrong_variable_is_named() -> None:
    result = invoke("main:app", LASTCALL_PORT="x")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: LASTCALL_PORT: 'x' is not usable")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["main:app", "--prot", "1"], "--port"),
        (["main:app", "--limit-header"], "--limit-headers"),
        (["main:app", "other:app"], "other:app"),
        (["main:app", "--port"], "--port"),
        ([], "APP"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_hint(arguments: list[str], hint: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert "Traceback" not in result.stderr


def test_of_a_pair_of_flags_the_one_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from lastcall.cli.flags import TableFlag  # noqa: PLC0415 - beside the one test that looks inside

    flag = TableFlag(OPTIONS["access_log"])
    assert (flag.written(True), flag.written(False)) == ("--access-log", "--no-access-log")
    assert TableFlag(OPTIONS["reload"]).written(False) == "--reload"


@pytest.mark.parametrize("code", [0, 1, 4, 5])
def test_the_servers_exit_code_is_the_commands(code: int, server: Server) -> None:
    server.outcome = code
    assert invoke("main:app").exit_code == code


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (StartupError("the port is taken"), 3, "Error: the port is taken\n"),
        (ConfigError("--loop", "uvloop", "uvloop to be installed"), 2, "Error: --loop: 'uvloop' is not usable"),
        (KeyboardInterrupt(), 0, ""),
    ],
)
def test_known_errors_of_the_server(error: BaseException, code: int, text: str, server: Server) -> None:
    server.outcome = error
    result = invoke("main:app")
    assert result.exit_code == code
    assert result.stderr.startswith(text)
    assert "Traceback" not in result.stderr


# -- Help and version --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_what_works_now_by_topic(flag: str) -> None:
    result = invoke(flag)
    assert result.exit_code == 0
    titles = [line[:-1] for line in result.output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Examples", "Commands", *(group for group in GROUPS if group != "Later"), "Help"]
    for option in OPTIONS.values():
        for name in option.flags:
            assert (f"  {name} " in result.output or f" / {name}" in result.output) == (option.group != "Later")


def test_help_speaks_of_flags_and_has_no_markup() -> None:
    text = " ".join(invoke("--help").output.split()).replace("- ", "-")  # lines may end inside a flag
    assert "`" not in text
    assert "--timeout-graceful-shutdown" in text
    assert "--timeout-keep-alive SECONDS" in text
    assert "[75]" in text


def test_version() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output.startswith(f"lastcall {__version__} with ")


@pytest.mark.slow
def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "lastcall", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"lastcall {__version__} with ")


@pytest.mark.slow
def test_a_wrong_option_from_a_shell() -> None:
    command = [sys.executable, "-m", "lastcall", "main:app", "--port", "x"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: --port: 'x'")


# -- Entry point ---------------------------------------------------------------------------------


def test_the_entry_point_takes_any_application(server: Server) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["drill:app", "--port", "1"])
    assert caught.value.code == 0
    assert server.config is not None
    assert (server.config.app, server.config.port) == ("drill:app", 1)


def test_the_entry_point_reads_argv(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lastcall", "main:app"])
    server.outcome = 4
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 4


@pytest.mark.parametrize(("options", "frozen"), [((), True), (("--no-gc-freeze",), False)], ids=["default", "off"])
def test_the_modules_of_the_command_are_frozen_unless_told_otherwise(
    server: Server, serve: Callable[..., Config], options: tuple[str, ...], frozen: bool
) -> None:
    serve("main:app", *options)
    assert server.collecting, "the application finds the collector at work"
    assert (server.frozen > 0) is frozen


# -- signals before the server has handlers ----------------------------------------------------------------------------


def test_a_command_of_another_package_has_the_usual_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        early_exit.leave_at_once()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        with pytest.raises(SystemExit):
            main(["once", "--help"])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        early_exit.leave_no_more()
        signal.signal(signal.SIGINT, before)
    assert "once" in capsys.readouterr().out


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        early_exit.leave_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        early_exit.leave_no_more()
        signal.signal(signal.SIGINT, before)

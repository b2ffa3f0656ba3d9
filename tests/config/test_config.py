"""``Config``: precedence, errors in the user's own words, and what the packages receive."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from lastcall.base.errors import ConfigError
from lastcall.base.options import BindSpec, ServerOptions
from lastcall.config import Config
from lastcall.config.keywords import ConfigKeywords
from lastcall.config.options import GROUPS, OPTIONS, Option
from lastcall.config.resolve import Given

TIMES = sorted(name for name in OPTIONS if name.startswith("timeout_") and OPTIONS[name].group != "Later")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)


def make(**keywords: Any) -> Config:
    """A Config of keywords that a type checker may know to be wrong."""
    return Config("app:app", **keywords)


def command(flags: dict[str, tuple[object, str]] | None = None, /, **environ: str) -> Config:
    given = {name: Given(raw, spelled) for name, (raw, spelled) in (flags or {}).items()}
    return Config.from_command("app:app", given, environ)


def refused(**keywords: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        make(**keywords)
    return caught.value


# -- The table ---------------------------------------------------------------------------------------------------


def test_the_keywords_are_those_of_the_table() -> None:
    annotations = {name: ref.__forward_arg__ for name, ref in ConfigKeywords.__annotations__.items()}
    assert annotations == {option.name: option.annotation for option in OPTIONS.values()}


def test_every_option_belongs_to_a_group() -> None:
    assert {option.group for option in OPTIONS.values()} == set(GROUPS)


def test_flags_are_unique() -> None:
    flags = [flag for option in OPTIONS.values() for flag in option.flags]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("option", list(OPTIONS.values()), ids=lambda option: option.name)
def test_defaults_are_values_that_can_be_given(option: Option) -> None:
    assert option.kind.read(option.default) == option.default
    if option.command_default is not ...:
        assert option.kind.read(option.command_default) == option.command_default
    if option.only is not None:
        assert option.default in option.only.values


def test_defaults_are_those_of_each_package() -> None:
    """``base.options`` has defaults of its own, for tests of packages; nobody should be surprised by others here."""
    ours, theirs = make().options, ServerOptions()
    assert ours.http == theirs.http
    assert ours.net == theirs.net
    assert ours.stop == theirs.stop
    assert ours.workers == theirs.workers
    assert ours.canary == theirs.canary
    assert ours.reload == theirs.reload
    assert ours.process == theirs.process
    assert (ours.loop, ours.gc_freeze, ours.limit_max_requests_jitter) == ("auto", True, 0)
    assert (ours.log.config, ours.log.access_log, ours.log.use_colors) == (None, True, None)


# -- Reading -----------------------------------------------------------------------------------------------------


def test_options_are_attributes() -> None:
    config = make(port=0, timeout_keep_alive=None, limit_body="1M", lifespan="on")
    assert config.app == "app:app"
    assert (config.host, config.port, config.timeout_keep_alive) == ("127.0.0.1", 0, math.inf)
    assert (config.limit_body, config.lifespan, config.workers) == (1024**2, "on", 1)
    assert config.warnings == []


def test_an_attribute_that_is_no_option() -> None:
    with pytest.raises(AttributeError, match="'port'"):
        make().prot  # noqa: B018
    with pytest.raises(AttributeError, match="_nothing"):
        make()._nothing  # noqa: B018


def test_a_config_does_not_change() -> None:
    config = make()
    with pytest.raises(AttributeError):
        config.port = 1
    assert config.port == 8000


def test_a_config_can_be_sent_to_another_process() -> None:
    config = make(port=1, headers=["a: b"])
    copy = pickle.loads(pickle.dumps(config))
    assert copy.options == config.options
    assert (copy.app, copy.port, copy.warnings) == ("app:app", 1, [])


def test_repr_shows_what_was_given() -> None:
    assert repr(make(port=1)) == "Config('app:app', port=1)"


def test_values_reach_the_packages(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.touch()

    async def app(scope: object, receive: object, send: object) -> None:
        """Nothing."""

    options = Config(
        app,
        factory=True,
        app_dir="src",
        env_file=env_file,
        interface="asgi2",
        lifespan="off",
        root_path="/api",
        timeout_lifespan_startup=1,
        timeout_header=2,
        timeout_body=3,
        timeout_write=4,
        timeout_keep_alive=0,
        limit_request_line=5,
        limit_headers=6,
        limit_header_bytes=7,
        limit_body=0,
        limit_concurrency=9,
        limit_max_requests=10,
        limit_max_requests_jitter=11,
        headers=[("X-A", "b")],
        health_path="/health/",
        refuse_event_streams="503",
        server_header=False,
        date_header=False,
        backlog=12,
        driver="asyncio",
        limit_connections=13,
        timeout_graceful_shutdown=None,
        timeout_cancel=15,
        timeout_lifespan_shutdown=16,
        timeout_interrupt=17,
        drain_delay=18,
        drain_farewell=19,
        timeout_disconnect=None,
        drain_close=["/events*", "/logs"],
        drain_finish="/events/last",
        drain_report=tmp_path / "report.json",
        exit_nonzero_on_cut=True,
        log_level="DEBUG",
        log_config={"version": 1},
        access_log=False,
        use_colors=True,
        loop="uvloop",
        gc_freeze=False,
    ).options
    assert (options.app.app, options.app.factory, options.app.app_dir) == (app, True, "src")
    assert (options.app.env_file, options.app.interface) == (str(env_file), "asgi2")
    assert (options.app.lifespan, options.app.root_path, options.app.timeout_lifespan_startup) == ("off", "/api", 1.0)
    http = options.http
    assert (http.timeout_header, http.timeout_body, http.timeout_write, http.timeout_keep_alive) == (2, 3, 4, 0)
    assert (http.limit_request_line, http.limit_headers, http.limit_header_bytes, http.limit_body) == (5, 6, 7, 0)
    assert (http.limit_concurrency, http.limit_max_requests, options.limit_max_requests_jitter) == (9, 10, 11)
    assert (http.headers, http.server_header, http.date_header) == (((b"x-a", b"b"),), False, False)
    assert (http.root_path, http.health_path, http.refuse_event_streams) == ("/api", "/health", "503")
    assert (options.net.backlog, options.net.driver, options.net.limit_connections) == (12, "asyncio", 13)
    stop = options.stop
    assert (stop.graceful, stop.cancel, stop.lifespan_shutdown, stop.interrupt) == (math.inf, 15, 16, 17)
    assert (stop.delay, stop.farewell, stop.disconnect) == (18, 19, math.inf)
    assert (stop.close, stop.finish) == (("/events*", "/logs"), ("/events/last",))
    assert (stop.report, stop.nonzero_on_cut) == (str(tmp_path / "report.json"), True)
    log = options.log
    assert (log.level, log.config, log.access_log, log.use_colors) == ("debug", {"version": 1}, False, True)
    assert (options.loop, options.gc_freeze) == ("uvloop", False)


def test_a_server_or_date_header_replaces_the_own_one() -> None:
    http = make(headers=["Server: mine", "x: y"]).options.http
    assert (http.server_header, http.date_header) == (False, True)
    http = make(headers=[("date", "today")]).options.http
    assert (http.server_header, http.date_header) == (True, False)


def test_log_config_none_leaves_logging_alone() -> None:
    """uvicorn's programs pass None for that, so it is not "the default"."""
    assert make().options.log.config is None
    assert make(log_config=None).options.log.config is False
    assert make(log_config="x.ini").options.log.config == "x.ini"


@pytest.mark.parametrize("name", TIMES)
def test_none_is_no_limit_and_not_the_default(name: str) -> None:
    assert getattr(make(**{name: None}), name) == math.inf
    assert getattr(command({name: ("none", "--x")}), name) == math.inf


# -- Listeners ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "binds"),
    [
        ({}, [BindSpec("tcp", host="127.0.0.1", port=8000)]),
        ({"host": "::", "port": 80}, [BindSpec("tcp", host="::", port=80)]),
        ({"uds": Path("/x")}, [BindSpec("unix", path="/x")]),
        ({"fd": 0}, [BindSpec("fd", fd=0)]),
        ({"fd": 3, "uds": "/x", "host": "a"}, [BindSpec("fd", fd=3)]),
        ({"uds": "/x", "port": 1}, [BindSpec("unix", path="/x")]),
        ({"bind": "a:1"}, [BindSpec("tcp", host="a", port=1)]),
        ({"bind": ["a:1", "fd://3"]}, [BindSpec("tcp", host="a", port=1), BindSpec("fd", fd=3)]),
        ({"bind": []}, [BindSpec("tcp", host="127.0.0.1", port=8000)]),
        ({"bind": ["a:1"], "uds": None, "fd": None}, [BindSpec("tcp", host="a", port=1)]),
    ],
)
def test_listeners(keywords: dict[str, object], binds: list[BindSpec]) -> None:
    assert list(make(**keywords).options.net.binds) == binds


ADDRESSES = {"host": "b", "port": "1", "uds": "/x", "fd": "3"}


@pytest.mark.parametrize("name", ADDRESSES)
def test_bind_says_everything_about_listeners(name: str) -> None:
    error = refused(bind="a:1", **{name: ADDRESSES[name]})
    assert (error.option, error.value) == (name, ADDRESSES[name])
    assert f"no {name} beside bind" in error.expected


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize("bind_from_env", [False, True])
@pytest.mark.parametrize("other_from_env", [False, True])
def test_bind_is_exclusive_wherever_it_comes_from(name: str, bind_from_env: bool, other_from_env: bool) -> None:
    flags: dict[str, tuple[object, str]] = {}
    environ: dict[str, str] = {}
    if bind_from_env:
        environ["LASTCALL_BIND"] = "a:1"
    else:
        flags["bind"] = (("a:1",), "--bind")
    if other_from_env:
        environ[f"LASTCALL_{name.upper()}"] = ADDRESSES[name]
    else:
        flags[name] = (ADDRESSES[name], f"--{name}")
    with pytest.raises(ConfigError) as caught:
        command(flags, **environ)
    assert caught.value.option == (f"LASTCALL_{name.upper()}" if other_from_env else f"--{name}")
    assert ("LASTCALL_BIND" if bind_from_env else "--bind") in caught.value.expected


def test_an_address_without_effect_is_a_warning() -> None:
    assert make(uds="/x").warnings == []
    assert make(uds="/x", host="a", port=1).warnings == [
        "host has no effect beside uds",
        "port has no effect beside uds",
    ]
    config = command({"fd": ("3", "--fd")}, LASTCALL_UDS="/x")
    (warning,) = config.warnings
    assert all(name in warning for name in ("LASTCALL_UDS", "--fd"))


# -- Precedence and names ----------------------------------------------------------------------------------------


def test_flag_over_environment_over_default() -> None:
    assert command().port == 8000
    assert command(LASTCALL_PORT="81").port == 81
    assert command({"port": ("82", "--port")}, LASTCALL_PORT="81").port == 82


def test_a_flag_hides_an_unusable_variable() -> None:
    assert command({"port": ("82", "--port")}, LASTCALL_PORT="x").port == 82


def test_an_empty_variable_is_not_set() -> None:
    assert command(LASTCALL_PORT="", LASTCALL_UDS="").port == 8000


def test_variables_of_switches_and_repeatable_options() -> None:
    config = command(LASTCALL_ACCESS_LOG="off", LASTCALL_BIND="a:1  unix:/x", LASTCALL_HEADERS="x: a b\ny: c\n")
    assert config.access_log is False
    assert [str(bind) for bind in config.bind] == ["a:1", "unix:/x"]
    assert config.headers == ((b"x", b"a b"), (b"y", b"c"))


def test_variables_of_uvicorn_are_not_read() -> None:
    assert command(UVICORN_PORT="81").port == 8000


def test_a_variable_that_nobody_reads_is_named() -> None:
    environ = {"LASTCALL_PROT": "s3cret", "UVICORN_PORT": "81", "UVICORN_APP": "a:b", "UVICORN_FD_X": "1", "PORT": "1"}
    unknown, app, fd, port = command(**environ).warnings
    assert "LASTCALL_PROT" in unknown
    assert "'LASTCALL_PORT'" in unknown
    assert "UVICORN_APP" in app
    assert "LASTCALL_APP" in app
    assert "UVICORN_FD_X" in fd
    assert "UVICORN_PORT" in port
    assert "LASTCALL_PORT" in port
    assert not any("s3cret" in warning for warning in command(**environ).warnings)


@pytest.mark.parametrize(
    "name",
    [
        "LASTCALL_APP",
        "LASTCALL_ONCE_STORE",
        "LASTCALL_WORKER_ID",
        "LASTCALL_SERVICE_HOST",
        "LASTCALL_SERVICE_PORT_HTTP",
        "LASTCALL_PORT_8000_TCP_ADDR",
    ],
)
def test_a_variable_that_somebody_else_reads_is_none_of_ours(name: str) -> None:
    assert command(**{name: "x"}).warnings == []


def test_programs_are_not_touched_by_the_commands_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTCALL_PORT", "81")
    monkeypatch.setenv("LASTCALL_PROT", "81")
    assert make().port == 8000
    assert make().warnings == []


# -- Several mistakes --------------------------------------------------------------------------------------------


def test_all_that_is_refused_is_named_at_once() -> None:
    given = {"workers": Given("0", "--workers"), "ssl_keyfile_password": Given("s3cret", "--ssl-keyfile-password")}
    with pytest.raises(ConfigError) as caught:
        Config.from_command("main", given, {"LASTCALL_RELOAD": "maybe", "LASTCALL_PORT": "x"})
    errors = caught.value.errors
    assert [error.option for error in errors] == [
        "APP",
        "LASTCALL_PORT",
        "--workers",
        "LASTCALL_RELOAD",
        "--ssl-keyfile-password",
    ]
    assert caught.value.option == "APP"
    assert all(str(error) in str(caught.value) for error in errors)
    assert "s3cret" not in str(caught.value)


def test_unknown_keywords_are_named_with_all_else() -> None:
    error = refused(prot=1, workers=0, hots="a")
    assert [one.option for one in error.errors] == ["prot", "hots", "workers"]


def test_one_mistake_is_alone() -> None:
    error = refused(port="x")
    assert error.errors == (error,)


# -- The name of the application -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "module:attribute, for example main:app"),
        ("  ", "for example main:app"),
        ("main", "for example main:app"),
        ("main.app", "for example main:app"),
        ("pack.web", "for example pack.web:app"),
        ("app.py", "as in app:app"),
        ("app/main.py:app", "as in app.main:app"),
        ("./app/main.py", "as in app.main:app"),
        ("app/main:application", "as in app.main:application"),
        ("app/__init__.py:app", "as in app:app"),
        ("/srv/site/main.py:app", "as in main:app --app-dir /srv/site"),
        ("../main.py", "as in main:app --app-dir .."),
        ("main.py:site", "as in main:site"),
        (":site", "for example main:site"),
        ("site:", "for example site:app"),
        (":", "for example main:app"),
        ("a:b:c", "module:attribute"),
        (".main:app", "module:attribute"),
        ("my-site:app", "module:attribute"),
        ("main:app()", "module:attribute"),
    ],
)
def test_an_import_string_that_cannot_be_right(name: str, expected: str) -> None:
    for make_it, option in ((Config, "app"), (lambda app: Config.from_command(app, {}, {}), "APP")):
        with pytest.raises(ConfigError) as caught:
            make_it(name)
        assert (caught.value.option, caught.value.value) == (option, name)
        assert expected in caught.value.expected
        assert "\n" not in str(caught.value)


def test_app_dir_is_the_current_directory_for_the_command_only() -> None:
    assert command().options.app.app_dir == ""
    assert make().options.app.app_dir is None


ANY_TEXT = {"log_config", "reload_dirs", "reload_includes", "reload_excludes", "forwarded_allow_ips"}


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.env])
def test_every_variable_is_read(name: str) -> None:
    variable = f"LASTCALL_{name.upper()}"
    if name in ANY_TEXT:
        assert getattr(command(**{variable: "text"}), name) in ("text", ("text",))
        return
    with pytest.raises(ConfigError) as caught:
        command(**{variable: "\0"})
    assert caught.value.option == variable


def test_an_error_names_the_option_as_the_user_wrote_it() -> None:
    error = refused(port=-1)
    assert (error.option, error.value) == ("port", -1)
    assert all(part in str(error) for part in ("port", "-1", error.expected))
    with pytest.raises(ConfigError) as caught:
        command({"port": ("x", "--port")})
    assert (caught.value.option, caught.value.value) == ("--port", "x")
    with pytest.raises(ConfigError) as caught:
        command(LASTCALL_PORT="x")
    assert (caught.value.option, caught.value.value) == ("LASTCALL_PORT", "x")


def test_an_error_shows_the_wrong_one_of_several_values() -> None:
    with pytest.raises(ConfigError) as caught:
        command({"bind": (("a:1", "b"), "--bind")})
    assert (caught.value.option, caught.value.value) == ("--bind", "b")
    assert refused(headers=["a: b", "c"]).value == "c"


@pytest.mark.parametrize(
    ("keyword", "suggestion"),
    [("prot", "port"), ("header", "headers"), ("time-out-header", "timeout_header"), ("log_lvl", "log_level")],
)
def test_an_unknown_keyword(keyword: str, suggestion: str) -> None:
    error = refused(**{keyword: 1})
    assert error.option == keyword
    assert repr(suggestion) in error.expected


def test_an_unknown_keyword_that_resembles_nothing() -> None:
    assert "did you mean" not in str(refused(zzzzqqq=1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout_header", 0),
        ("timeout_body", 0),
        ("timeout_write", 0),
        ("timeout_lifespan_shutdown", 0),
        ("timeout_lifespan_startup", 0),
        ("limit_connections", 0),
        ("limit_concurrency", 0),
        ("limit_max_requests", 0),
        ("limit_headers", None),
        ("host", ""),
        ("host", None),
        ("port", None),
        ("interface", "asgi"),
        ("lifespan", True),
        ("driver", "epoll"),
        ("loop", "trio"),
        ("log_level", "loud"),
        ("env_file", "/nowhere/.env"),
        ("factory", "perhaps"),
        ("headers", [("Content-Length", "1")]),
        ("bind", "8000"),
    ],
)
def test_values_that_cannot_be_used(name: str, value: object) -> None:
    assert refused(**{name: value}).option == name


@pytest.mark.parametrize("name", ["timeout_keep_alive", "timeout_graceful_shutdown", "timeout_cancel"])
def test_zero_is_a_time_where_it_means_something(name: str) -> None:
    assert getattr(make(**{name: 0}), name) == 0


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [-1, math.nan, "-0.1", "nan"])
def test_negative_times_and_nan_are_refused(name: str, value: object) -> None:
    assert refused(**{name: value}).option == name

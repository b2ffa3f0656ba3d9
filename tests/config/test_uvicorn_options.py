"""uvicorn's options: all known, all accepted with uvicorn's defaults, refused only for what they ask."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from lastcall.base.errors import ConfigError
from lastcall.config import Config
from lastcall.config import config as config_module
from lastcall.config.options import OPTIONS
from lastcall.config.resolve import Given

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "uvicorn-options.md"

# Keyword: (default of uvicorn 0.54, flag or "" for Python only). Left out: the logging dictionary, whose place
# `log_config={...}` takes here, and `proxy_headers`, which has tests of its own.
UVICORN: dict[str, tuple[object, str]] = {
    "host": ("127.0.0.1", "--host"),
    "port": (8000, "--port"),
    "uds": (None, "--uds"),
    "fd": (None, "--fd"),
    "reload": (False, "--reload"),
    "reload_dirs": (None, "--reload-dir"),
    "reload_includes": (None, "--reload-include"),
    "reload_excludes": (None, "--reload-exclude"),
    "reload_delay": (0.25, "--reload-delay"),
    "workers": (None, "--workers"),
    "loop": ("auto", "--loop"),
    "http": ("auto", "--http"),
    "http2": (False, "--http2"),
    "ws": ("auto", "--ws"),
    "ws_max_size": (16777216, "--ws-max-size"),
    "ws_max_queue": (32, "--ws-max-queue"),
    "ws_ping_interval": (20.0, "--ws-ping-interval"),
    "ws_ping_timeout": (20.0, "--ws-ping-timeout"),
    "ws_per_message_deflate": (True, "--ws-per-message-deflate"),
    "lifespan": ("auto", "--lifespan"),
    "interface": ("auto", "--interface"),
    "env_file": (None, "--env-file"),
    "log_config": ({"version": 1, "disable_existing_loggers": False}, "--log-config"),
    "log_level": (None, "--log-level"),
    "access_log": (True, "--access-log"),
    "use_colors": (None, "--use-colors"),
    "proxy_headers": (True, "--proxy-headers"),
    "forwarded_allow_ips": (None, "--forwarded-allow-ips"),
    "root_path": ("", "--root-path"),
    "server_header": (True, "--server-header"),
    "date_header": (True, "--date-header"),
    "headers": (None, "--header"),
    "limit_concurrency": (None, "--limit-concurrency"),
    "backlog": (2048, "--backlog"),
    "limit_max_requests": (None, "--limit-max-requests"),
    "limit_max_requests_jitter": (0, "--limit-max-requests-jitter"),
    "timeout_keep_alive": (5, "--timeout-keep-alive"),
    "timeout_graceful_shutdown": (None, "--timeout-graceful-shutdown"),
    "timeout_worker_healthcheck": (5, "--timeout-worker-healthcheck"),
    "ssl_keyfile": (None, "--ssl-keyfile"),
    "ssl_certfile": (None, "--ssl-certfile"),
    "ssl_keyfile_password": (None, "--ssl-keyfile-password"),
    "ssl_version": (ssl.PROTOCOL_TLS_SERVER, "--ssl-version"),
    "ssl_cert_reqs": (ssl.CERT_NONE, "--ssl-cert-reqs"),
    "ssl_ca_certs": (None, "--ssl-ca-certs"),
    "ssl_ciphers": (None, "--ssl-ciphers"),
    "ssl_context_factory": (None, ""),
    "app_dir": (None, "--app-dir"),
    "h11_max_incomplete_event_size": (None, "--h11-max-incomplete-event-size"),
    "reset_contextvars": (False, "--reset-contextvars"),
    "factory": (False, "--factory"),
    "timeout_notify": (30, ""),
    "callback_notify": (None, ""),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """An application that no import string names."""


def make(**keywords: Any) -> Config:
    return Config("app:app", **keywords)


def on_command(name: str, text: object, **environ: str) -> Config:
    return Config.from_command("app:app", {name: Given(text, OPTIONS[name].flags[0])}, environ)


@pytest.mark.parametrize("name", UVICORN)
def test_the_default_is_accepted(name: str) -> None:
    default, flag = UVICORN[name]
    make(**{name: default})
    assert OPTIONS[name].flags[:1] == ((flag,) if flag else ())


def test_all_defaults_are_accepted_together() -> None:
    config = make(**{name: default for name, (default, _) in UVICORN.items()})
    assert [warning for warning in config.warnings if "proxy_headers" not in warning] == []


@pytest.mark.parametrize(
    "name",
    [name for name, (default, flag) in UVICORN.items() if flag and isinstance(default, str | int | float)],
)
def test_the_default_is_accepted_as_text(name: str) -> None:
    default, _ = UVICORN[name]
    if name != "proxy_headers":
        on_command(name, str(int(default) if isinstance(default, int) and not isinstance(default, bool) else default))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 1),
        ("ws", "none"),
        ("ws", "websockets"),
        ("ws", "websockets-sansio"),
        ("ws", "wsproto"),
        ("ws_ping_interval", None),
        ("http", "h11"),
        ("http", "httptools"),
        ("loop", "none"),
        ("loop", "asyncio"),
        ("loop", "uvloop"),
        ("proxy_headers", False),
        ("ssl_ciphers", "TLSv1"),
        ("reload_dirs", ["src"]),
        ("reload_includes", "*.py"),
        ("reload_excludes", ["a", "b"]),
        ("reload_delay", 1),
        ("timeout_worker_healthcheck", 30),
        ("timeout_notify", 1),
        ("reset_contextvars", True),
    ],
)
def test_what_asks_for_nothing_that_is_missing_is_accepted(name: str, value: object) -> None:
    config = make(**{name: value})
    assert config.warnings == []
    assert config.workers == 1


@pytest.mark.parametrize(
    ("name", "value", "missing"),
    [
        ("http", "zttp", "own HTTP"),
        ("http", "package:Protocol", "own HTTP"),
        ("http", object, "own HTTP"),
        ("http2", True, "HTTP/2"),
        ("ws", object, "WebSocket"),
        ("ssl_keyfile", "key.pem", "TLS"),
        ("ssl_certfile", "cert.pem", "TLS"),
        ("ssl_keyfile_password", "hunter2", "TLS"),
        ("ssl_version", ssl.PROTOCOL_TLS_CLIENT, "TLS"),
        ("ssl_cert_reqs", ssl.CERT_REQUIRED, "TLS"),
        ("ssl_ca_certs", "ca.pem", "TLS"),
        ("ssl_ciphers", "HIGH", "TLS"),
        ("ssl_context_factory", print, "TLS"),
        ("h11_max_incomplete_event_size", 4096, "limit_header_bytes"),
        ("callback_notify", print, "lifespan"),
    ],
)
def test_what_is_missing_is_refused_by_name(name: str, value: object, missing: str) -> None:
    with pytest.raises(ConfigError, match=missing) as caught:
        make(**{name: value})
    assert caught.value.option == name


def test_a_password_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        make(ssl_keyfile_password="hunter2")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.value)


def test_proxy_headers_in_python_is_a_warning() -> None:
    """It is uvicorn's default, so programs that spell out the defaults must go on working."""
    config = make(proxy_headers=True)
    assert config.proxy_headers is False
    assert len(config.warnings) == 1
    assert "X-Forwarded-For" in config.warnings[0]
    assert make().warnings == []


def test_proxy_headers_on_the_command_line_is_refused() -> None:
    assert Config.from_command("app:app", {}, {}).warnings == []
    assert on_command("proxy_headers", False).warnings == []
    with pytest.raises(ConfigError) as caught:
        on_command("proxy_headers", True)
    assert caught.value.option == "--proxy-headers"
    with pytest.raises(ConfigError) as caught:
        Config.from_command("app:app", {}, {"LASTCALL_PROXY_HEADERS": "on"})
    assert (caught.value.option, caught.value.value) == ("LASTCALL_PROXY_HEADERS", "on")


@pytest.mark.parametrize("text", ["", "1"])
def test_web_concurrency_of_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", text)
    assert make().warnings == []


def test_web_concurrency_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", " 4 ")
    assert make().options.workers.count == 4
    assert make().options.workers.supervised
    assert make(workers=None).workers == 4, "uvicorn's default, spelled out"
    assert make(workers=1).workers == 1, "who says how many workers does not mean the variable"
    assert not make(workers=1).options.workers.supervised
    assert make().warnings == []
    assert Config.from_command("app:app", {}, {"WEB_CONCURRENCY": "3"}).workers == 3
    assert on_command("workers", "2", WEB_CONCURRENCY="3").workers == 2
    assert Config.from_command("app:app", {}, {"WEB_CONCURRENCY": "3", "LASTCALL_WORKERS": "2"}).workers == 2


@pytest.mark.parametrize("text", ["0", "-1", "many", "2.5", "1 2"])
def test_a_wrong_web_concurrency(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", text)
    with pytest.raises(ConfigError) as caught:
        make()
    assert (caught.value.option, caught.value.value) == ("WEB_CONCURRENCY", text)
    assert make(workers=2).workers == 2, "it is not looked at"


def test_an_object_is_served_by_one_process_whatever_the_platform_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    config = Config(application)
    assert config.workers == 1
    assert not config.options.workers.supervised
    (warning,) = config.warnings
    assert "WEB_CONCURRENCY=4" in warning


@pytest.mark.parametrize(
    "keywords",
    [
        {"workers": 2},
        {"workers": "auto"},
        {"reload": True},
        {"supervise": True},
        {"canary": True},
        {"limit_worker_age": 60},
        {"limit_worker_rss": "1G"},
    ],
)
def test_workers_import_the_application_themselves(keywords: dict[str, Any]) -> None:
    assert make(**keywords).app == "app:app"
    with pytest.raises(ConfigError, match="import string") as caught:
        Config(application, **keywords)
    assert [caught.value.option] == list(keywords)
    assert Config(application, workers=1).workers == 1


def test_reload_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make(reload=True, workers=4)
    assert (config.workers, config.options.workers.supervised) == (1, True)
    (warning,) = config.warnings
    assert "workers=4" in warning
    assert make(reload=True, workers=1).warnings == []
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    (warning,) = make(reload=True).warnings
    assert "WEB_CONCURRENCY=4" in warning


@pytest.mark.parametrize("value", ["*", "127.0.0.1", ["10.0.0.0/8"]])
def test_who_may_send_proxy_headers_is_a_warning(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (warning,) = make(forwarded_allow_ips=value).warnings
    assert warning.startswith("forwarded_allow_ips ")
    assert "X-Forwarded-For" in warning
    assert make(forwarded_allow_ips=None).warnings == []
    assert make(forwarded_allow_ips=value, proxy_headers=False).warnings == [], "who wants none misses none"
    assert len(make(forwarded_allow_ips=value, proxy_headers=True).warnings) == 1, "one is enough"
    (warning,) = on_command("forwarded_allow_ips", value).warnings
    assert warning.startswith("--forwarded-allow-ips ")
    (warning,) = Config.from_command("app:app", {}, {"LASTCALL_FORWARDED_ALLOW_IPS": "*"}).warnings
    assert warning.startswith("LASTCALL_FORWARDED_ALLOW_IPS ")
    (warning,) = Config.from_command("app:app", {}, {"FORWARDED_ALLOW_IPS": "*"}).warnings
    assert warning.startswith("FORWARDED_ALLOW_IPS ")
    assert len(Config.from_command("app:app", {}, {"FORWARDED_ALLOW_IPS": "*"} | {"LASTCALL_PORT": "1"}).warnings) == 1
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    (warning,) = make().warnings
    assert warning.startswith("FORWARDED_ALLOW_IPS ")


# -- The page ----------------------------------------------------------------------------------------------------


def page_rows() -> dict[str, list[str]]:
    rows = (line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `")
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in rows}


def test_the_page_has_every_option_of_uvicorn() -> None:
    names = {flag or name for name, (_, flag) in UVICORN.items()} | {"--version"}
    assert set(page_rows()) == names


@pytest.mark.parametrize("name", UVICORN)
def test_the_page_says_the_defaults(name: str) -> None:
    default, flag = UVICORN[name]
    option = OPTIONS[name]
    theirs, ours, _ = page_rows()[flag or name]
    assert ours == option.default_text
    if name not in ("log_config", "app_dir"):
        assert theirs == option.kind.show(option.kind.read(default))


def test_the_flags_that_the_page_mentions_exist() -> None:
    known = {flag for option in OPTIONS.values() for flag in option.flags} | {"--version"}
    assert set(re.findall(r"--[a-z][a-z0-9-]+", PAGE.read_text(encoding="utf-8"))) <= known


def test_options_of_a_parent_get_a_warning_where_there_is_none() -> None:
    warnings = make(control_socket="/tmp/x", smoke=["/docs"], canary_hold=5).warnings
    assert [warning.split()[0] for warning in warnings] == ["control_socket", "smoke", "canary_hold"]
    assert all("supervise" in warning for warning in warnings)
    for asking in ({"workers": 2}, {"supervise": True}, {"limit_worker_age": 60}, {"canary": True}):
        config = make(**asking, control_socket="/tmp/x", smoke=["/docs"], canary_hold=5, timeout_worker_stall=5)
        assert config.warnings == []
        assert config.options.workers.supervised


def test_those_that_come_from_elsewhere_are_only_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    (hold,) = Config.from_command("app:app", {}, {"LASTCALL_CANARY_HOLD": "5"}).warnings
    assert "LASTCALL_CANARY_HOLD" in hold
    assert Config.from_command("app:app", {}, {"LASTCALL_CONTROL_SOCKET": "/tmp/x"}).warnings == [], "it is ctl's, too"
    (stall,) = make(timeout_worker_stall=120).warnings
    assert "timeout_worker_stall" in stall
    monkeypatch.setattr(config_module, "available_cpus", lambda: 1)
    (socket,) = make(workers="auto", control_socket="/tmp/x").warnings
    assert "control_socket" in socket
    assert make(control_socket=None, timeout_worker_stall=60).warnings == [], "the defaults, spelled out"

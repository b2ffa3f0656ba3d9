"""What becomes of gunicorn's settings, and how the parts of a stop fit into its timeout. Without processes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

gunicorn_config = pytest.importorskip("gunicorn.config")

from lastcall.base.errors import ConfigError  # noqa: E402
from lastcall.config import Config  # noqa: E402
from lastcall.gunicorn import OWNED, RESERVE, WITHOUT_EFFECT, budgets, configure, exit_code  # noqa: E402
from lastcall.server.parts import budgets_of  # noqa: E402


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Is not called."""


def settings(**changes: Any) -> Any:
    cfg = gunicorn_config.Config()
    for name, value in changes.items():
        cfg.set(name, value)
    return cfg


def made(environ: dict[str, str] | None = None, kwargs: dict[str, Any] | None = None, **changes: Any) -> Config:
    return configure(application, settings(**changes), 7, environ or {}, kwargs or {})[0]


def lines(environ: dict[str, str] | None = None, kwargs: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    return configure(application, settings(**changes), 7, environ or {}, kwargs or {})[1]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")  # which is gunicorn's here


def test_the_defaults() -> None:
    config = made()
    assert (config.workers, config.options.workers.supervised, config.access_log) == (1, False, False)
    assert (config.timeout_keep_alive, config.backlog) == (settings().keepalive, 2048)
    assert config.limit_request_line == Config(application, workers=1).limit_request_line, (
        "it is ours: nobody has set it"
    )
    assert config.limit_max_requests is None
    assert len(lines()) == 1, "how long requests have"


def test_what_is_taken_over() -> None:
    config = made(
        keepalive=9, limit_request_line=2000, limit_request_fields=7, worker_connections=50, max_requests=5,
        accesslog="-", backlog=10,
    )  # fmt: skip
    assert (config.timeout_keep_alive, config.limit_request_line, config.limit_headers) == (9, 2000, 7)
    assert (config.limit_connections, config.limit_max_requests, config.access_log) == (50, 7, True)
    assert config.backlog == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit_request_field_size", 100),
        ("limit_request_line", 0),
        ("forwarded_allow_ips", "*"),
        ("proxy_protocol", True),
        ("threads", 4),
        ("pre_request", lambda _worker, _request: None),
    ],
)
def test_what_has_no_effect_is_said(name: str, value: Any) -> None:
    said = [line for line in lines(**{name: value}) if f"gunicorn's {name} " in line]
    assert len(said) == 1


def test_options_of_ours() -> None:
    config = made({"LASTCALL_DRAIN_CLOSE": "/a /b", "LASTCALL_SERVER_HEADER": "off"}, {"drain_close": ["/c"]})
    assert config.drain_close == ("/c",)
    assert config.server_header is False
    (said,) = [line for line in lines({"LASTCALL_WORKERS": "3"}) if "workers" in line]
    assert "no effect" in said
    with pytest.raises(ConfigError):
        made(kwargs={"drain_clsoe": "/a"})


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_settings_that_are_named_exist(name: str) -> None:
    assert name in settings().settings


@pytest.mark.parametrize("name", OWNED)
def test_options_that_are_named_exist(name: str) -> None:
    made(kwargs={name: object()})  # whatever its value: it is not looked at


times = st.one_of(st.floats(0, 100), st.just(math.inf))


@given(
    st.integers(0, 300),
    times,
    st.one_of(st.floats(0.1, 100), st.just(math.inf)),
    st.floats(0, 100),
    times,
    st.booleans(),
)
def test_a_stop_always_fits(
    timeout: int, cancel: float, shutdown: float, delay: float, grace: float, asked: bool
) -> None:
    keywords: dict[str, Any] = {
        "workers": 1,
        "timeout_cancel": cancel,
        "timeout_lifespan_shutdown": shutdown,
        "drain_delay": delay,
        "timeout_graceful_shutdown": grace,
    }
    said: list[str] = []
    config = Config(application, **keywords)
    keywords |= budgets(timeout, config, asked, said)
    fitted = Config(application, **keywords)
    worst = budgets_of(fitted.options.stop).worst_case()
    if timeout >= RESERVE + 1.2:
        assert worst <= timeout - RESERVE + 0.15
    assert worst < math.inf
    if asked and fitted.options.stop.graceful < grace:
        assert said, "a grace that is cut is said"
    assert fitted.options.stop.graceful <= grace or not asked


@pytest.mark.parametrize(
    ("code", "before", "after"), [(0, 0, 0), (1, 1, 1), (3, 3, 1), (4, 1, 1), (5, 5, 5), (6, 6, 6), (7, 7, 7)]
)
def test_exit_codes(code: int, before: int, after: int) -> None:
    assert exit_code(code, served=False) == before
    assert exit_code(code, served=True) == after

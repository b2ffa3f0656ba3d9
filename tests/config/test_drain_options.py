"""The options of the drain: each by flag, variable and keyword, each value that cannot be used, each contradiction."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from lastcall.base.errors import ConfigError
from lastcall.base.options import HTTPOptions, ServerOptions, StopOptions
from lastcall.config import Config
from lastcall.config.options import OPTIONS
from lastcall.config.resolve import Given

# Option: (its flag, its field, the default).
DRAIN: dict[str, tuple[str, str, object]] = {
    "drain_delay": ("--drain-delay", "delay", 0.0),
    "drain_farewell": ("--drain-farewell", "farewell", 1.0),
    "drain_close": ("--drain-close", "close", ()),
    "drain_finish": ("--drain-finish", "finish", ()),
    "drain_report": ("--drain-report", "report", None),
    "exit_nonzero_on_cut": ("--exit-nonzero-on-cut", "nonzero_on_cut", False),
    "health_path": ("--health-path", "health_path", ""),
    "timeout_graceful_shutdown": ("--timeout-graceful-shutdown", "graceful", 20.0),
    "timeout_interrupt": ("--timeout-interrupt", "interrupt", 3.0),
    "timeout_cancel": ("--timeout-cancel", "cancel", 2.0),
    "timeout_disconnect": ("--timeout-disconnect", "disconnect", 3.0),
    "timeout_lifespan_shutdown": ("--timeout-lifespan-shutdown", "lifespan_shutdown", 5.0),
}
SECONDS = [name for name, (_, _, default) in DRAIN.items() if isinstance(default, float)]
BUDGETS = [name for name in SECONDS if name.startswith("timeout_")]
WAYS = ["flag", "variable", "keyword"]

NUMBER = "a number of seconds, 0 or more"
GLOB = "a glob of paths, which begins with / or *"
FILE = "a file that can be written, in a directory that exists"
PREFIX = "a path below /, as in /health, without ?, #, spaces and control characters"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


def made(way: str, **texts: Any) -> ServerOptions:
    """What the packages are told where the options are given in this way. As a variable, a list becomes words."""
    if way == "keyword":
        return Config("app:app", **texts).options
    if way == "flag":
        given = {name: Given(text, DRAIN[name][0]) for name, text in texts.items()}
        return Config.from_command("app:app", given, {}).options
    words = {name: " ".join(text) if isinstance(text, list) else text for name, text in texts.items()}
    return Config.from_command(
        "app:app", {}, {f"LASTCALL_{name.upper()}": text for name, text in words.items()}
    ).options


def field(options: ServerOptions, name: str) -> object:
    return getattr(options.http if name == "health_path" else options.stop, DRAIN[name][1])


def spelled(way: str, name: str) -> str:
    return {"flag": DRAIN[name][0], "variable": f"LASTCALL_{name.upper()}", "keyword": name}[way]


def refused(way: str, culprit: str, /, **texts: Any) -> ConfigError:
    """The error, which has to name the option as the user wrote it."""
    with pytest.raises(ConfigError) as caught:
        made(way, **texts)
    assert caught.value.option == spelled(way, culprit)
    assert str(caught.value).startswith(f"{spelled(way, culprit)}: {caught.value.value!r} is not usable: expected ")
    return caught.value


# -- Defaults and names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAIN)
def test_the_default(name: str) -> None:
    flag, attribute, default = DRAIN[name]
    assert field(made("flag"), name) == field(made("keyword"), name) == default
    assert getattr(HTTPOptions() if name == "health_path" else StopOptions(), attribute) == default
    assert OPTIONS[name].flags == (flag,)


def test_every_field_of_the_stop_is_an_option_and_every_option_of_the_drain_is_here() -> None:
    assert {attribute for _, attribute, _ in DRAIN.values()} == {*StopOptions._fields, "health_path"}
    assert {name for name in OPTIONS if name.startswith("drain_")} <= set(DRAIN)


# -- Values that can be given ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *((name, "0.25", 0.25) for name in SECONDS),
        *((name, "1000000000", 1e9) for name in SECONDS),
        *((name, "0", 0.0) for name in SECONDS if name != "timeout_lifespan_shutdown"),
        *((name, "none", math.inf) for name in BUDGETS),
        ("drain_close", ["/events"], ("/events",)),
        ("drain_close", ["/events/*", "*/logs", "*"], ("/events/*", "*/logs", "*")),
        ("drain_finish", ["/events/[ab]?", "/events/[ab]?"], ("/events/[ab]?", "/events/[ab]?")),
        ("drain_report", "/dev/null", "/dev/null"),
        ("exit_nonzero_on_cut", "true", True),
        ("exit_nonzero_on_cut", "off", False),
        ("health_path", "/health", "/health"),
        ("health_path", "/health/", "/health"),
        ("health_path", "/-/healthz", "/-/healthz"),
    ],
)
def test_a_value_by_flag_variable_and_keyword(way: str, name: str, text: Any, value: object) -> None:
    assert field(made(way, **{name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        *((name, 4, 4.0) for name in SECONDS),
        *((name, None, math.inf) for name in BUDGETS),
        *((name, math.inf, math.inf) for name in BUDGETS),
        ("drain_close", "/events", ("/events",)),
        ("drain_close", (), ()),
        ("drain_close", None, ()),
        ("drain_finish", None, ()),
        ("drain_report", None, None),
        ("drain_report", Path("/dev/null"), "/dev/null"),
        ("exit_nonzero_on_cut", True, True),
        ("health_path", "", ""),
        ("health_path", None, ""),
    ],
)
def test_a_value_that_only_python_has(name: str, given: Any, value: object) -> None:
    assert field(made("keyword", **{name: given}), name) == value


@pytest.mark.parametrize("way", WAYS)
def test_a_report_beside_the_application(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert made(way, drain_report="report.json").stop.report == str(tmp_path / "report.json")
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_farewell_longer_than_the_grace_is_no_error(way: str) -> None:
    """The ladder ends it with the grace."""
    stop = made(way, drain_farewell="30", timeout_graceful_shutdown="0").stop
    assert (stop.farewell, stop.graceful) == (30.0, 0.0)


@pytest.mark.parametrize("way", WAYS)
def test_close_and_finish_may_overlap(way: str) -> None:
    stop = made(way, drain_close=["/events*"], drain_finish=["/events/a", "/events/*"]).stop
    assert (stop.close, stop.finish) == (("/events*",), ("/events/a", "/events/*"))


# -- Values that cannot be used --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("drain_delay", "none", NUMBER),
        ("drain_farewell", "none", NUMBER),
        ("timeout_lifespan_shutdown", "0", "a number of seconds above 0 or none"),
        ("timeout_lifespan_shutdown", "-1", "a number of seconds above 0 or none"),
        ("timeout_lifespan_shutdown", "nan", "a number of seconds above 0 or none"),
        ("timeout_lifespan_shutdown", "soon", "a number of seconds above 0 or none"),
        *((name, text, NUMBER) for name in ("drain_delay", "drain_farewell") for text in ("-1", "nan", "inf", "5s")),
        *(
            (name, text, f"{NUMBER} or none")
            for name in BUDGETS
            for text in ("-0.5", "nan", "inf", "5s")
            if name != "timeout_lifespan_shutdown"
        ),
        *((name, "1000000001", "at most 1000000000 seconds or none") for name in BUDGETS),
        ("drain_delay", "1e300", "at most 1000000000 seconds"),
        ("drain_close", ["events"], GLOB),
        ("drain_close", ["?vents"], GLOB),
        ("drain_close", ["https://example.org/events"], GLOB),
        ("drain_finish", ["events"], GLOB),
        ("drain_report", "/nowhere/report.json", FILE),
        ("drain_report", "/dev/null/report.json", FILE),
        ("drain_report", "/", FILE),
        ("drain_report", "/dev", FILE),
        ("exit_nonzero_on_cut", "perhaps", "true or false"),
        ("exit_nonzero_on_cut", "6", "true or false"),
        ("health_path", "/", PREFIX),
        ("health_path", "//", PREFIX),
        ("health_path", "health", PREFIX),
        ("health_path", "none", PREFIX),
        ("health_path", "/health?full", PREFIX),
        ("health_path", "/health#full", PREFIX),
        ("health_path", "/he alth", PREFIX),
        ("health_path", "/health\n", PREFIX),
        ("health_path", "/health\x7f", PREFIX),
    ],
)
def test_a_value_that_cannot_be_used(way: str, name: str, text: Any, expected: str) -> None:
    error = refused(way, name, **{name: text})
    assert (error.value, error.expected) == (text[0] if isinstance(text, list) else text, expected)


@pytest.mark.parametrize("name", ["drain_close", "drain_finish"])
@pytest.mark.parametrize("way", ["flag", "keyword"])
def test_an_empty_glob(way: str, name: str) -> None:
    """A variable that is empty counts as not set, and one of spaces has no globs."""
    for globs in ([""], ["/events", ""]):
        error = refused(way, name, **{name: globs})
        assert (error.value, error.expected) == ("", GLOB)
    assert field(made("variable", **{name: ""}), name) == ()
    assert field(made("variable", **{name: " "}), name) == ()


@pytest.mark.parametrize("way", WAYS)
def test_the_wrong_one_of_several_globs_is_named(way: str) -> None:
    assert refused(way, "drain_close", drain_close=["/a", "b", "/c"]).value == "b"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("drain_delay", None),
        ("drain_delay", math.inf),
        ("drain_delay", True),
        ("drain_farewell", None),
        ("drain_farewell", math.inf),
        ("drain_close", 3),
        ("drain_close", [None]),
        ("drain_close", [b"/events"]),
        ("drain_finish", b"/events"),
        ("drain_report", 3),
        ("drain_report", ""),
        ("exit_nonzero_on_cut", 6),
        ("exit_nonzero_on_cut", None),
        ("health_path", b"/health"),
        ("health_path", False),
        *((name, value) for name in SECONDS for value in (-1, -0.1, math.nan, -math.inf)),
    ],
)
def test_a_value_that_cannot_be_used_in_python(name: str, given: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        made("keyword", **{name: given})
    assert caught.value.option == name


# -- Contradictions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_glob_cannot_both_close_and_finish(way: str) -> None:
    error = refused(way, "drain_finish", drain_close=["/a", "/events"], drain_finish=["/b", "/events"])
    assert error.value == "/events"
    assert error.expected == f"no glob that {spelled(way, 'drain_close')} has too"


@pytest.mark.parametrize("close_from_variable", [False, True])
def test_a_glob_cannot_both_close_and_finish_wherever_they_come_from(close_from_variable: bool) -> None:
    flag, variable = ("drain_finish", "drain_close") if close_from_variable else ("drain_close", "drain_finish")
    given = {flag: Given(("/events",), DRAIN[flag][0])}
    with pytest.raises(ConfigError) as caught:
        Config.from_command("app:app", given, {f"LASTCALL_{variable.upper()}": "/events"})
    names = (
        ("--drain-finish", "LASTCALL_DRAIN_CLOSE")
        if close_from_variable
        else ("LASTCALL_DRAIN_FINISH", "--drain-close")
    )
    assert (caught.value.option, caught.value.expected) == (names[0], f"no glob that {names[1]} has too")


def test_a_flag_hides_a_variable_that_contradicts_another_flag() -> None:
    given = {
        "drain_close": Given(("/events",), "--drain-close"),
        "drain_finish": Given(("/exports",), "--drain-finish"),
    }
    stop = Config.from_command("app:app", given, {"LASTCALL_DRAIN_FINISH": "/events"}).options.stop
    assert (stop.close, stop.finish) == (("/events",), ("/exports",))

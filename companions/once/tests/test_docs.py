"""The pages about once say what the code does, and every outcome in the table of bad input has a test."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from pathlib import Path

import click
import pytest

from lastcall_once import metrics, problems
from lastcall_once.cli.main import once as once_group
from lastcall_once.guard import AsyncOnce
from lastcall_once.metrics import OnceEvent
from lastcall_once.middleware import IdempotencyMiddleware
from lastcall_once.records import State
from lastcall_once.service import faults
from lastcall_once.service.routes import ROUTES
from testing.pages import page
from testing.proofs import NAME, names_in

PAGE = page("docs/reference/once.md")
BAD_INPUT = PAGE.section("Bad input").rows("what", "outcome", "proved by")


@pytest.mark.parametrize(("section", "thing"), [("Middleware", IdempotencyMiddleware), ("Python", AsyncOnce)])
def test_the_options_and_their_defaults(section: str, thing: type) -> None:
    documented = {row[0]: row[1] for row in PAGE.section(section).rows("option", "default", "")}
    parameters = list(inspect.signature(thing).parameters.values())
    real = {f"`{p.name}`": _default(p) for p in parameters if p.name != "app"}
    assert documented == real


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required"
    default = parameter.default
    shown = f"{type(default).__name__}.{default.name}" if isinstance(default, Enum) else repr(default)
    return f"`{shown}`"


def test_the_methods() -> None:
    for text, _ in PAGE.section("Python").rows("method", ""):
        name, _, arguments = text.strip("`").rstrip(")").partition("(")
        documented = {word.partition("=")[0].strip("* ") for word in arguments.split(",")} - {""}
        assert documented == set(inspect.signature(getattr(AsyncOnce, name)).parameters) - {"self"}


def test_the_codes_of_the_middleware() -> None:
    rows = PAGE.section("Middleware").rows("code", "status", "when")
    assert {code.strip("`"): int(status) for code, status, _ in rows} == {
        code: status for code, (status, _) in problems.CODES.items()
    }


def test_the_codes_of_the_service() -> None:
    rows = PAGE.section("HTTP service").rows("code", "status", "")
    assert {code.strip("`"): int(status) for code, status, _ in rows} == {
        code: status for code, (status, _) in faults.CODES.items()
    }


def test_the_endpoints() -> None:
    rows = PAGE.section("HTTP service").rows("endpoint", "")
    documented = [endpoint.strip("`") for endpoint, _ in rows]
    assert sorted(documented) == sorted(f"{route.method} {route.path}" for route in ROUTES)


def test_the_states() -> None:
    rows = PAGE.section("States").rows("state", "means", "next attempt")
    assert [state.strip("`") for state, *_ in rows] == [state.value for state in State]


def test_the_metrics_and_events() -> None:
    source = Path(metrics.__file__).read_text(encoding="utf-8")
    named = {row[0].strip("`") for row in PAGE.section("Metrics").rows("name", "labels", "")}
    assert named == set(re.findall(r'"(once_\w+)"', source))
    outcomes = re.findall(r"`(\w+)`", PAGE.section("Metrics").rows("name", "labels", "")[0][2])
    assert set(outcomes) == {*metrics.OUTCOMES.values(), "store_error"}
    events = {row[0].strip("`") for row in PAGE.section("Events").rows("name", "when")}
    told = (OnceEvent.__doc__ or "").partition("``name`` is ")[2].partition(";")[0]
    assert events == set(re.findall(r"``(\w+)``", told))
    first = PAGE.section("Events").text.partition("\n\n|")[0]
    assert re.findall(r"`(\w+)`", first)[1:] == list(OnceEvent._fields)


def test_the_commands_and_their_options() -> None:
    rows = PAGE.section("Commands").rows("command", "options", "")
    documented = {text.strip("`"): set(re.findall(r"`(--[\w-]+)`", options)) for text, options, _ in rows}
    assert documented == dict(_commands(once_group, "lastcall once"))


def _commands(group: click.Group, path: str) -> list[tuple[str, set[str]]]:
    """All commands with their arguments and options, without those that all have and those of the server."""
    found = []
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += _commands(command, f"{path} {name}")
            continue
        words, own = [path, name], set()
        for param in command.params:
            if isinstance(param, click.Argument) and param.nargs < 0:
                continue  # the options of the server
            if isinstance(param, click.Argument):
                metavar = (param.metavar or param.name or "").upper()
                words.append(metavar if param.required else f"[{metavar}]")
            else:
                own.update(param.opts[:1])
        found.append((" ".join(words), {flag for flag in own if flag not in ("--store", "--json", "--version")}))
    return found


@pytest.mark.parametrize(("what", "outcome", "proof"), BAD_INPUT, ids=[row[0] for row in BAD_INPUT])
def test_every_outcome_has_a_test_that_exists(what: str, outcome: str, proof: str) -> None:
    assert outcome.endswith("."), what
    found = NAME.findall(proof)
    assert found, what
    assert NAME.sub("", proof).replace(",", "").strip() == "", "nothing but names"
    for path, name in found:
        assert name in names_in(path), f"{path} has no {name}"


def test_every_test_of_bad_input_proves_an_outcome() -> None:
    named = {name for _, _, proof in BAD_INPUT for path, name in NAME.findall(proof) if path.endswith("bad_input.py")}
    assert named == names_in("companions/once/tests/test_bad_input.py")

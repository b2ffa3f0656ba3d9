"""The reference pages that are written by hand say what the code does."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Callable

import pytest

import lastcall
from lastcall.asgi.lifespan import LifespanOutcome
from lastcall.base import errors
from lastcall.base.exit_code import ExitCode
from lastcall.base.types import Receive, Scope, Send
from lastcall.drain import ladder, report
from lastcall.drain.ladder import TEARDOWN, Budgets, Phase, State
from lastcall.notice.notice import DrainNotice
from lastcall.server import process
from lastcall.supervisor.report import LOST
from testing.memory import Bench, answering
from testing.memory import get as request
from testing.pages import ROOT, page

API = page("docs/reference/api.md")
STOP_REPORT = page("docs/reference/stop-report.md")
# Public by name because other packages use them, and no part of the API.
OF_OTHER_PACKAGES = {
    "Server": {
        "abandoned",
        "amend",
        "at_least",
        "generators",
        "hung_up",
        "importing",
        "interrupt_start",
        "interrupted",
        "loop_failed",
        "serve_under",
        "signal_received",
        "start_interrupted",
        "starting",
        "under_parent",
    },
    "Config": {"from_command", "from_origin", "listening_on", "origin", "says_where"},
}


# -- exit codes -------------------------------------------------------------------------------------------------------


def test_the_exit_codes_are_those_of_the_code() -> None:
    rows = page("docs/reference/exit-codes.md").rows("code", "meaning", "what to do")
    documented = {int(code): meaning for code, meaning, _ in rows}
    assert list(documented) == list(ExitCode)
    assert "`lifespan.shutdown`" in documented[ExitCode.LIFESPAN]
    assert "`--exit-nonzero-on-cut`" in documented[ExitCode.CUT]


def test_the_readme_has_every_exit_code() -> None:
    sentence = re.search(r"exit code: (.*?)\n\n", page("README.md").text, re.DOTALL)
    assert sentence is not None
    assert re.findall(r"\b(\d) ", sentence[1]) == [str(int(code)) for code in ExitCode]


# -- the numbers of a stop --------------------------------------------------------------------------------------------


def test_the_numbers_of_a_stop_are_the_defaults() -> None:
    budgets = Budgets()
    assert (budgets.worst_case(), budgets.worst_case(interactive=True)) == (28, 11)
    rows = {
        row[0]: row[2:] for row in page("docs/how-to/stop-cleanly.md").rows("", "option", "SIGTERM", "Ctrl-C (SIGINT)")
    }
    numbers = {name.split()[0].strip("*"): [_first_number(cell) for cell in cells] for name, cells in rows.items()}
    assert numbers == {
        "delay": [budgets.delay, 0],
        "grace": [budgets.graceful, budgets.interrupt],
        "cancel": [budgets.cancel] * 2,
        "lifespan": [budgets.lifespan_shutdown] * 2,
        "teardown": [TEARDOWN] * 2,
        "worst": [28, 11],
    }


def test_the_example_for_docker_fits_into_ten_seconds() -> None:
    text = page("docs/how-to/stop-in-docker.md").text
    given = {name: float(value) for name, value in re.findall(r"--timeout-([a-z-]+) (\d+)", text)}
    worst = Budgets(given["graceful-shutdown"], given["cancel"], given["lifespan-shutdown"]).worst_case()
    assert worst < 10
    assert f"# {worst:g} s in all" in text


def test_the_budgets_for_kubernetes_add_up() -> None:
    one = page("docs/how-to/stop-under-kubernetes.md")
    head = (
        "",
        "`--drain-delay`",
        "grace",
        "cancel",
        "lifespan",
        "teardown",
        "worst case",
        "`terminationGracePeriodSeconds`",
    )
    rows = one.rows(*head)
    for name, *cells in rows:
        d, g, c, ell, t, worst, kill = map(_first_number, cells)
        assert Budgets(delay=d, graceful=g, cancel=c, lifespan_shutdown=ell).worst_case() == worst, name
        assert (t, worst < kill) == (TEARDOWN, True), name
    manifest = next(block.text for block in one.blocks if block.language == "yaml")
    delay = re.search(r'"--drain-delay", "(\d+)"', manifest)
    kill_timer = re.search(r"terminationGracePeriodSeconds: (\d+) # .* = (\d+) s", manifest)
    assert delay is not None
    assert kill_timer is not None
    worst = Budgets(delay=float(delay[1])).worst_case()
    assert (worst, worst < int(kill_timer[1])) == (int(kill_timer[2]), True)


def test_the_timeout_for_systemd_is_long_enough() -> None:
    given = re.search(r"^TimeoutStopSec=(\d+)$", page("docs/how-to/stop-under-systemd.md").text, re.MULTILINE)
    assert given is not None
    assert Budgets().worst_case() < int(given[1])


def test_the_arithmetic_of_a_stop_is_that_of_the_ladder() -> None:
    rows = page("docs/explanation/drain.md").rows("SIGTERM", "Ctrl-C", "")
    budgets = Budgets()
    for column, interactive in ((0, False), (1, True)):
        state = State(phase=Phase.DRAINING, draining_since=0.0, grace=budgets.grace(interactive=interactive))
        timers = (ladder.Input.FAREWELL_OVER, ladder.Input.SHOULD_EXIT_DUE)
        farewell, poll = (state.timer_at(timer, budgets) for timer in timers)
        cancelled = state.cancel_at
        closing = cancelled + budgets.cancel
        gone = budgets.worst_case(interactive=interactive)
        expected = [
            farewell, farewell + ladder.margin(state.grace), poll, state.disconnect_at, cancelled, closing,
            closing + budgets.lifespan_shutdown, gone, gone + process.WATCHDOG_MARGIN,
        ]  # fmt: skip
        told = [float(row[column].strip("*")) for row in rows[2:-2]]
        assert told == pytest.approx(expected)


def _first_number(cell: str) -> float:
    match = re.search(r"\d+", cell)
    assert match is not None, cell
    return float(match[0])


# -- the API ----------------------------------------------------------------------------------------------------------


def test_every_name_of_the_api_has_a_place() -> None:
    first = API.text.partition("\n## ")[0]
    assert {name for name in lastcall.__all__ if f"`{name}`" in first or f"`lastcall.{name}`" in first} == set(
        lastcall.__all__
    )


@pytest.mark.parametrize("name", ["run", "Config", "Server", "track"])
def test_a_signature_is_that_of_the_code(name: str) -> None:
    documented = (
        API.section(name).text.strip().splitlines()[0].strip("`").removeprefix("lastcall.").partition(" -> ")[0]
    )
    assert documented == name + _signature(getattr(lastcall, name))


def test_the_methods_of_a_server() -> None:
    for method, _ in API.section("Server").rows("method", ""):
        text = method.strip("`").removeprefix("async ").partition(" -> ")[0]
        function = getattr(lastcall.Server, text.partition("(")[0])
        assert text == function.__name__ + _signature(function)
        assert inspect.iscoroutinefunction(function) == method.startswith("`async ")


@pytest.mark.parametrize("name", ["Server", "Config"])
def test_every_public_attribute_is_documented_or_of_another_package(name: str) -> None:
    config = lastcall.Config("app:app")
    thing = config if name == "Config" else lastcall.Server(config)
    public = {attribute for attribute in dir(thing) if not attribute.startswith("_")}
    section = API.section(name)
    documented = {cells[0].strip("`") for cells in section.rows("attribute", "") if cells[0].startswith("`")}
    if name == "Server":
        documented |= {
            cells[0].strip("`").removeprefix("async ").partition("(")[0] for cells in section.rows("method", "")
        }
    assert documented == public - OF_OTHER_PACKAGES[name]


def test_the_members_of_a_notice() -> None:
    rows = [cells[0].strip("`") for cells in API.section("DrainNotice").rows("member", "")]
    documented = {text.removeprefix("async ").partition("(")[0] for text in rows}
    assert documented == {name for name in dir(DrainNotice) if not name.startswith("_")}


def test_the_fields_of_a_report() -> None:
    rows = STOP_REPORT.section("Fields").rows("field", "")
    assert [cells[0].strip("`") for cells in rows] == list(lastcall.StopReport._fields)
    cut = STOP_REPORT.section("Cut responses").rows("field", "")
    assert [cells[0].strip("`") for cells in cut] == list(report.Cut._fields)
    kinds = STOP_REPORT.section("Kinds").rows("kind", "what it is at that moment")
    assert [cells[0].strip("`") for cells in kinds] == list(report.KINDS)


def test_the_example_of_a_report_adds_up() -> None:
    example = json.loads(next(block.text for block in STOP_REPORT.blocks if block.language == "json"))
    assert list(example) == list(lastcall.StopReport._fields)
    assert all(list(one) == list(report.Cut._fields) for one in example["cut"])
    ends = ("finished", "closed_by_policy", "broken_off", "disconnected", "cancelled", "abandoned")
    assert sum(example["in_flight"].values()) + example["arrived"] == sum(example[end] for end in ends)
    assert set(example["phases"]) <= set(Phase.__members__)
    assert set(example["in_flight"]) <= set(report.KINDS)
    assert example["seconds"] == pytest.approx(sum(example["phases"].values()), abs=0.01)


def test_the_outcomes_of_a_report() -> None:
    sums = re.search(r"`in_flight` and `arrived` together.*?same number", STOP_REPORT.text, re.DOTALL)
    assert sums is not None
    fields = [outcome.replace(" ", "_") for outcome in report.OUTCOMES]
    assert re.findall(r"`(\w+)`", sums[0]) == ["in_flight", "arrived", *fields]
    row = dict(STOP_REPORT.section("Cut responses").rows("field", ""))["`outcome`"]
    assert set(re.findall("`([^`]+)`", row)) == set(report.OUTCOMES) - {report.FINISHED, report.CLOSED_BY_POLICY}


def test_the_words_of_a_lifespan() -> None:
    words = dict(STOP_REPORT.section("Fields").rows("field", ""))["`lifespan`"]
    assert set(re.findall("`([^`]+)`", words)) == {outcome.value for outcome in LifespanOutcome} | {LOST}


def test_the_exceptions() -> None:
    rows = {name.strip("`"): bases for name, bases, _ in API.section("Exceptions").rows("exception", "bases", "when")}
    ours = {
        name: thing
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and thing.__module__ == errors.__name__
    }
    assert set(rows) == set(ours)
    for name, thing in ours.items():
        assert re.findall(r"`(\w+)`", rows[name]) == [base.__name__ for base in thing.__bases__]


def _signature(function: Callable[..., object]) -> str:
    """The parameters without types, and without ``self``."""
    signature = inspect.signature(function)
    plain = [
        parameter.replace(annotation=parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


# -- HTTP -------------------------------------------------------------------------------------------------------------

HOST = b"Host: a\r\n"
START = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
# One request for each row of the table, or several where the row names several things.
REFUSED: dict[str, list[bytes]] = {
    "first byte of a TLS handshake": [b"\x16"],
    "HTTP/2 preface": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.2\r\n", b"GET / HTTP/0.9\r\n"],
    "more than 2 empty lines": [b"\r\n\r\n\r\n"],
    "a line that ends in a bare LF": [b"GET / HTTP/1.1\nHost: a\r\n\r\n", START + b"Host: a\n\r\n"],
    "a bare CR": [START + b"Host: a\r\nb: c\rd\r\n\r\n"],
    "a method that is no token": [b"G@T / HTTP/1.1\r\n"],
    "anything but one space": [b"GET  / HTTP/1.1\r\n", b"GET /  HTTP/1.1\r\n", b"GET /\tHTTP/1.1\r\n"],
    "a control character, a space": [b"GET /\x01 HTTP/1.1\r\n", b"GET /\xe4 HTTP/1.1\r\n", b"GET /#a HTTP/1.1\r\n"],
    "a target that is neither": [b"GET a HTTP/1.1\r\n", b"GET ftp://a/ HTTP/1.1\r\n"],
    "user information": [b"GET http://me@a/ HTTP/1.1\r\n"],
    "`*` with another method": [b"GET * HTTP/1.1\r\n"],
    "CONNECT": [b"CONNECT a:80 HTTP/1.1\r\n"],
    "a request line longer": [b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n"],
    "more header fields": [START + HOST + b"a: b\r\n" * 4],
    "header fields larger": [START + HOST + b"a: " + b"b" * 200 + b"\r\n"],
    "space between a field name": [START + b"Host : a\r\n\r\n"],
    "a continued field line": [START + HOST + b"a: b\r\n c\r\n\r\n"],
    "a field name that is no token": [START + HOST + b"a@: b\r\n\r\n", START + HOST + b": b\r\n\r\n"],
    "a control character other than TAB": [START + HOST + b"a: b\x00\r\n\r\n", START + HOST + b"a: \x7f\r\n\r\n"],
    "HTTP/1.1 without Host": [START + b"\r\n"],
    "two Host fields": [START + HOST + HOST + b"\r\n"],
    "an invalid Host": [START + b"Host: " + host + b"\r\n\r\n" for host in (b"a b", b"a,b@c", b"[...]", b"[1::2::3]")],
    "a Content-Length that is no": [
        POST + b"Content-Length: " + n + b"\r\n\r\n" for n in (b"+1", b"0x1", b"1_0", b"", b"9" * 19)
    ],
    "two Content-Length": [POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"],
    "Content-Length with": [POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
    "Transfer-Encoding in an HTTP/1.0": [b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"],
    "Transfer-Encoding in which": [
        POST + b"Transfer-Encoding: " + c + b"\r\n\r\n" for c in (b"chunked, gzip", b"chunked, chunked")
    ],
    "another transfer coding": [POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"],
    "a chunk size": [CHUNKED + size + b"\r\n" for size in (b"+1", b"0x1", b"-1", b"f" * 17)],
    "a chunk extension": [CHUNKED + b"5" + text + b"\r\n" for text in (b";;", b";=", b";a=b c", b';a="b"c', b';a="b')],
    "chunk data": [CHUNKED + b"1\r\nab\r\n"],
    "a body larger": [POST + b"Content-Length: 33\r\n\r\n", CHUNKED + b"21\r\n"],
    "an expectation": [START + HOST + b"Expect: more\r\n\r\n"],
    "a head that is not complete": [START],
}
SMALL = {"limit_request_line": 90, "limit_headers": 4, "limit_header_bytes": 100, "limit_body": 32}


def test_what_is_refused_is_refused_as_the_table_says(bench: Callable[..., Bench]) -> None:
    rows = page("docs/reference/http.md").rows("request", "status", "rule")
    left = dict(REFUSED)
    for text, status, _ in rows:
        key = next((key for key in left if text.startswith(key)), None)
        assert key is not None, f"no request for the row {text!r}"
        for data in left.pop(key):
            one = bench(answering(), **SMALL)
            client = one.connect()
            client.send(data)
            if status == "408":
                one.advance(one.options.timeout_header + 1)
            answer = client.answer()
            assert (answer.status, answer["connection"], client.gone) == (int(status), b"close", True), (text, data)
    assert left == {}, "requests without a row"


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"GET http://b:1/x HTTP/1.1\r\nHost: a\r\n\r\n", (b"host", b"b:1")),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", (b"host", b"a")),
        (b"GET / HTTP/1.0\r\n\r\n", None),
        (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", (b"content-length", b"2")),
        (CHUNKED + b"2;a=b\r\nab\r\n0\r\nTrailer: c\r\n\r\n", (b"transfer-encoding", b"chunked")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", (b"upgrade", b"h2c")),
    ],
)
def test_what_is_accepted_is_accepted(
    bench: Callable[..., Bench], data: bytes, seen: tuple[bytes, bytes] | None
) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await answering()(scope, receive, send)

    assert bench(app).ask(data).status == 200
    assert len(scopes) == 1
    assert seen is None or [pair for pair in scopes[0]["headers"] if pair[0] == seen[0]] == [seen]


# -- ASGI -------------------------------------------------------------------------------------------------------------


def test_the_scope_has_the_keys_of_the_table(bench: Callable[..., Bench]) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await answering()(scope, receive, send)

    bench(app, state={}).ask(request())
    bench(app).ask(request())
    documented = dict(page("docs/reference/asgi.md").rows("key", "value"))
    assert [f"`{key}`" for key in scopes[0]] == list(documented)
    assert set(scopes[0]) - set(scopes[1]) == {"state"}
    assert str(scopes[0]["asgi"]).replace("'", '"') in documented["`asgi`"]
    (extension,) = scopes[0]["extensions"].items()
    assert isinstance(extension[1]["notice"], DrainNotice)
    assert documented["`extensions`"].startswith(f'`{{"{extension[0]}": {{"notice": …}}}}`')


# -- dependencies -----------------------------------------------------------------------------------------------------


PROJECTS = {"lastcall": ".", "lastcall-once": "companions/once", "lastcall-drill": "companions/drill"}


def test_the_dependencies_are_those_of_the_projects() -> None:
    text = page("docs/reference/dependencies.md")
    three = ("distribution", "bound", "why")
    projects = {
        name: tomllib.loads((ROOT / place / "pyproject.toml").read_text(encoding="utf-8"))
        for name, place in PROJECTS.items()
    }
    to_run = text.section("To run").rows("package", *three)
    extras = text.section("Extras").rows("extra", *three)
    for name, project in projects.items():
        declared = project["project"]
        assert declared["name"] == name
        assert _named([row[1:] for row in to_run if row[0] == f"`{name}`"]) == _declared(declared["dependencies"])
        own = {extra: words for extra, words in declared["optional-dependencies"].items() if extra not in INTERNAL}
        found = {match[1] for row in extras if (match := re.fullmatch(rf"`{name}\[(\w+)\]`", row[0]))}
        assert found == set(own)
        for extra, requirements in own.items():
            rows = [row[1:] for row in extras if row[0] == f"`{name}[{extra}]`"]
            assert _named(rows) == _declared(requirements)
    server = projects["lastcall"]
    to_build = text.section("To build").rows(*three)
    assert _named(to_build) == _declared(server["build-system"]["requires"])
    for name in ("lastcall-once", "lastcall-drill"):
        assert projects[name]["build-system"]["requires"] == ["setuptools>=77"]
    for section, extra in (("To test", "test"), ("To lint", "lint")):
        needed = [one for one in server["project"]["optional-dependencies"][extra] if not one.startswith("lastcall[")]
        assert _named(text.section(section).rows(*three)) == _declared(needed)


INTERNAL = ("test", "lint")
"""Extras for those who work on lastcall."""


def _named(rows: list[list[str]]) -> set[tuple[str, str]]:
    return {(row[0].lower(), row[1]) for row in rows}


def _declared(requirements: list[str]) -> set[tuple[str, str]]:
    found = {re.fullmatch(r"(lastcall\[[\w,]+\]|[\w-]+)(.*)", text) for text in requirements}
    return {(match[1].lower(), match[2]) for match in found if match}

"""Every promise about the stop is on its page, and has a test that exists."""

from __future__ import annotations

import re

import pytest

from testing.pages import page
from testing.proofs import NAME, names_in

PAGE = page("docs/reference/shutdown-guarantees.md")

ROWS: dict[str, tuple[str, set[str]]] = {
    "Phases": (
        "phase",
        {"STARTING", "SERVING", "ANNOUNCED", "DRAINING", "DISCONNECTING", "CANCELLING", "CLOSING", "STOPPED"},
    ),
    "Budgets": (
        "budget",
        {"sum", "kept", "margin", "linger", "grace `none`", "grace 0", "cancel 0", "wrong values", "Python"},
    ),
    "Rules of the ladder": (
        "rule",
        {"disconnecting", "disconnect, then cancel", "no error", "close", "default", "who chooses", "Ctrl-C"},
    ),
    "Signals and orders": (
        "order",
        {"first", "second", "third", "SIGQUIT", "SIGHUP", "to a worker", "together", "jump", "other orders"},
    ),
    "Exit codes": ("code", {*"0123456", "several", "no signal"}),
    "Handlers": ("handler", {"signal handler", "wakes", "third", "starting", "replaced"}),
    "Whose process it is": ("call", {"run()", "serve()", "handlers", "threads", "cancelling"}),
    "The end is bounded": ("what", {"teardown", "threads", "watchdog", "always"}),
    "Connections": (
        "who",
        {
            *("backlog", "new clients", "unix socket", "shared listener", "±5 ms", "idle connections"),
            *("kept-alive connections", "idle close", "last byte", "unread body", "work after the response", "HTTP/2"),
        },
    ),
    "What applications get": (
        "what",
        {
            *("extension", "stopping, is_set()", "wait(), add_callback()", "remaining()", "finish(), close()"),
            *("threads", "drain_notice()", "track()"),
        },
    ),
    "The report": ("what", {"lines", "terminal", "JSON", "adds up", "cut", "moved", "no noise"}),
    "The machine": ("property", {"table", "any script", "budget", "running tasks"}),
    "Bad applications and bad clients": (
        "who",
        {
            *("swallows CancelledError", "blocks the loop", "spawns tasks for ever", "never reads receive()"),
            *("raises in lifespan.shutdown", "calls sys.exit()", "replaces the signal handlers"),
            *("never reads", "a byte a second", "keeps pipelining"),
        },
    ),
    "Failure modes": ("no.", {str(number) for number in range(1, 32)}),
}
"""The sections, the title of each one's first column, and what must stand in it: the rows of the design's tables."""

LATER = {
    "with WebSocket": {("Rules of the ladder", "close"), ("Rules of the ladder", "default")}
    | {("What applications get", "extension"), ("Failure modes", "26"), ("Failure modes", "27")},
    "with the fleet": {("Budgets", "sum"), ("Signals and orders", "SIGHUP"), ("Signals and orders", "to a worker")}
    | {("The report", "moved")}
    | {("Failure modes", str(number)) for number in (17, 20, 21, 22, 23, 24, 25)},
    "with HTTP/2": {("Connections", "HTTP/2"), ("Failure modes", "30")},
}
"""What may wait, and for what; nothing else may."""

FOUND = [
    (section, *row)
    for section, (head, _) in ROWS.items()
    for row in PAGE.section(section).rows(head, "guarantee", "proved by")
]


@pytest.mark.parametrize("section", ROWS)
def test_every_row_of_the_design_is_listed(section: str) -> None:
    head, expected = ROWS[section]
    assert {row[0] for row in PAGE.section(section).rows(head, "guarantee", "proved by")} == expected


def test_there_is_no_other_section() -> None:
    assert re.findall(r"^## (.+)$", PAGE.text, re.MULTILINE) == list(ROWS)


def test_all_31_failure_modes_are_listed_once_and_in_order() -> None:
    numbers = [key for section, key, *_ in FOUND if section == "Failure modes"]
    assert numbers == [str(number) for number in range(1, 32)]


@pytest.mark.parametrize(("section", "key", "guarantee", "proof"), FOUND, ids=[f"{row[0]}: {row[1]}" for row in FOUND])
def test_every_guarantee_has_a_test_that_exists_or_waits_for_what_it_may(
    section: str, key: str, guarantee: str, proof: str
) -> None:
    assert guarantee.endswith(".")
    found = NAME.findall(proof)
    later = [word for word in LATER if word in proof]
    assert NAME.sub("", proof).replace(",", "").split() == " ".join(later).split(), "nothing but these two"
    assert found or later
    for path, name in found:
        assert name in names_in(path), f"{path} has no {name}"
    for word in later:
        assert (section, key) in LATER[word]


def test_what_waits_is_said_to_wait() -> None:
    said = {(word, section, key) for section, key, _, proof in FOUND for word in LATER if word in proof}
    assert said == {(word, *place) for word, places in LATER.items() for place in places}

"""Signatures: sequences, what must not come, what has to be known; and that a healthy log has none of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lastcall_drill.cards.conditions import Facts, version_range
from lastcall_drill.cards.format import Card, Cause, Confidence, Signature
from lastcall_drill.cards.linear import Pattern
from lastcall_drill.cards.loader import CardError, catalogue, causes, load
from lastcall_drill.cards.match import Known, Summary, scan
from lastcall_drill.cards.scaffold import scaffold
from lastcall_drill.cli.cards import match_command

CARDS = catalogue()
ALL: list[Known] = [*CARDS, *causes()]
EVIDENCE = Path(__file__).parents[3] / "docs" / "reference" / "drill-cards-evidence.json"

HEALTHY = {
    "uvicorn": (
        "SIGTERM",
        """\
INFO:     Started server process [7]
INFO:     Waiting for application startup.
INFO:     Application startup complete.
INFO:     Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)
INFO:     127.0.0.1:47444 - "GET /slow?s=2 HTTP/1.1" 200 OK
INFO:     Shutting down
INFO:     Waiting for connections to close. (CTRL+C to force quit)
INFO:     Waiting for background tasks to complete. (CTRL+C to force quit)
INFO:     Waiting for application shutdown.
INFO:     Application shutdown complete.
INFO:     Finished server process [7]
""",
    ),
    "hypercorn": ("0", "[2026-11-29 22:47:42 +0000] [7] [INFO] Running on http://127.0.0.1:8000 (CTRL + C to quit)\n"),
    "gunicorn": (
        "0",
        """\
[2026-11-29 22:47:43 +0000] [7] [INFO] Starting gunicorn 27.0.1
[2026-11-29 22:47:43 +0000] [7] [INFO] Listening at: http://127.0.0.1:8000 (7)
[2026-11-29 22:47:43 +0000] [7] [INFO] Using worker: asgi
[2026-11-29 22:47:43 +0000] [8] [INFO] Booting worker with pid: 8
[2026-11-29 22:47:43 +0000] [8] [INFO] ASGI server listening on http://127.0.0.1:8000
[2026-11-29 22:47:43 +0000] [7] [INFO] Handling signal: term
[2026-11-29 22:47:44 +0000] [8] [INFO] Worker shutting down...
[2026-11-29 22:47:44 +0000] [8] [INFO] Waiting for 1 connections to finish...
[2026-11-29 22:47:44 +0000] [8] [INFO] Worker exiting (pid: 8)
[2026-11-29 22:47:44 +0000] [7] [INFO] Shutting down: Master
""",
    ),
    "granian": (
        "0",
        """\
[INFO] Starting granian (main PID: 7)
[INFO] Listening at: http://127.0.0.1:8000
[INFO] Spawning worker-1 with PID: 8
[INFO] Started worker-1
[INFO] Shutting down granian
[INFO] Stopping worker-1
[INFO] Stopped worker-1
[INFO] Granian shutdown completed, see ya!
""",
    ),
    "daphne": (
        "0",
        """\
2026-11-29 22:47:40,271 INFO     Starting server at tcp:port=8000:interface=127.0.0.1
2026-11-29 22:47:40,272 INFO     Listening on TCP address 127.0.0.1:8000
127.0.0.1:41888 - - [29/Nov/2026:22:47:40] "GET /ok" 200 2
2026-11-29 22:47:40,979 INFO     Killed 0 pending application instances
""",
    ),
    "lastcall": (
        "0",
        """\
INFO:     Waiting for application startup.
INFO:     Application startup complete.
INFO:     lastcall running on http://127.0.0.1:8000 (Press CTRL+C to quit)
INFO:     Stopping (SIGTERM): 1 request in flight, done within 13 s.
INFO:     127.0.0.1:46122 - "GET /slow?s=2 HTTP/1.1" 200 OK
INFO:     Waiting for application shutdown.
INFO:     Application shutdown complete.
INFO:     Stopped (SIGTERM) after 0.6 s: 1 of 1 finished; lifespan complete; exit code 0
""",
    ),
}
"""How the process ended, and what each server writes of a stop at which nothing is wrong."""

STILL_THERE = {
    "uvicorn-atexit-skipped": "the fix moves the work elsewhere; atexit functions are skipped as before",
}
"""Cards whose mended run shows the failure still, and why that is right."""


def found(text: str, cards: Iterable[Known] = tuple(ALL), facts: Facts | None = None) -> set[str]:
    return {one.card.id for one in summary_of(text, cards, facts).found}


def summary_of(text: str, cards: Iterable[Known], facts: Facts | None = None) -> Summary:
    return scan(io.BytesIO(text.encode()), list(cards), facts=facts)


def cause(*signatures: Signature, begins: str = "") -> Cause:
    return Cause("x", "x", signatures, (), begins=Pattern(begins) if begins else None)


def signature(*lines: str, **more: Any) -> Signature:
    said = {name: tuple(map(Pattern, value)) for name, value in more.items() if name in ("without", "never_then")}
    return Signature(tuple(map(Pattern, lines)), Confidence.HIGH, **{**more, **said})


# healthy logs


@pytest.mark.parametrize("server", HEALTHY)
def test_a_healthy_log_has_no_match(server: str) -> None:
    assert found(HEALTHY[server][1]) == set()


@pytest.mark.parametrize("server", HEALTHY)
def test_a_healthy_log_of_three_runs_has_none_either(server: str) -> None:
    assert found(HEALTHY[server][1] * 3) == set()


@pytest.mark.parametrize("server", HEALTHY)
def test_nor_has_it_one_when_it_is_known_how_the_process_ended(server: str) -> None:
    exit_, text = HEALTHY[server]
    assert found(text, facts=Facts({"python": "3.13.0"}, exit_)) == set()


def test_workers_that_are_replaced_while_others_finish_are_healthy() -> None:
    """uvicorn --workers 2 --limit-max-requests: the next worker starts while the last one waits for its clients."""
    recycled = """\
INFO:     Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)
INFO:     Started parent process [7]
INFO:     Started server process [8]
INFO:     Shutting down
INFO:     Waiting for connections to close. (CTRL+C to force quit)
INFO:     Started server process [9]
INFO:     Waiting for application startup.
INFO:     Application startup complete.
INFO:     Waiting for application shutdown.
INFO:     Application shutdown complete.
INFO:     Finished server process [8]
"""
    assert found(recycled) == set()


def test_a_hang_is_found_although_the_next_run_goes_on() -> None:
    lines = HEALTHY["uvicorn"][1].splitlines(keepends=True)
    hung = "".join(lines[: next(number for number, line in enumerate(lines) if "connections to close" in line) + 1])
    assert found(hung + HEALTHY["uvicorn"][1]) == {"uvicorn-451"}
    hung = "".join(lines[: next(number for number, line in enumerate(lines) if "Shutting down" in line) + 1])
    assert found(hung + HEALTHY["uvicorn"][1]) == {"uvicorn-graceful-timeout-python-3-12"}


# the catalogue


def runs(card: Card, *roles: str) -> list[dict[str, Any]]:
    cards = {one["id"]: one for one in json.loads(EVIDENCE.read_text())["cards"]}
    return [one for one in cards[card.id]["runs"] if one["role"] in roles]


def facts_of(run: dict[str, Any]) -> Facts:
    words = run["exit"]
    ended = words.removeprefix("exit code ").removeprefix("ended by ") if words else "none"
    return Facts({"python": run["python"], **run["versions"]}, ended)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_every_card_has_a_signature_that_its_own_evidence_matches(card: Card) -> None:
    for run in runs(card, "broken", "still-broken"):
        assert found("\n".join(run["output"]), [card], facts_of(run)) == {card.id}, run["title"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_what_mends_it_has_no_match(card: Card) -> None:
    for run in runs(card, "fixed"):
        matched = found("\n".join(run["output"]), [card], facts_of(run))
        assert matched == ({card.id} if card.id in STILL_THERE else set()), run["title"]


def test_what_is_not_the_servers_own_has_its_fix() -> None:
    known = causes()
    assert len({one.id for one in known} | {one.id for one in CARDS}) == len(known) + len(CARDS)
    for one in known:
        assert one.fixes, one.id
        assert one.signatures, one.id


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("app.service: State 'stop-sigterm' timed out. Killing.", "supervisor-timeout"),
        ("Container failed to exit within 10s of signal 15 - using the force", "supervisor-timeout"),
        ("Out of memory: Killed process 4711 (python) total-vm:1kB", "out-of-memory"),
        ("[ERROR] Worker (pid:8) was sent SIGKILL! Perhaps out of memory?", "out-of-memory"),
        ("OSError: [Errno 98] Address already in use", "address-in-use"),
        ("ERROR:asyncio:Task was destroyed but it is pending!", "task-destroyed"),
        ("ERROR:    Abandoned, threads that do not end: mailer; exit code 5", "thread-keeps-process"),
        ("ERROR:    Abandoned, still running 2 s after being cancelled: GET /swallow", "task-swallows-cancel"),
        (
            "ERROR:    The application's lifespan.shutdown did not complete within 5 s: it is cancelled.",
            "lifespan-shutdown-slow",
        ),
        (
            "2026/11/29 10:00:00 [error] 7#7: *1 upstream prematurely closed connection while reading response header "
            "from upstream, client: 127.0.0.1",
            "proxy-reused-connection",
        ),
    ],
)
def test_a_cause_outside_of_the_server_is_found_with_its_fix(line: str, name: str) -> None:
    done = CliRunner().invoke(match_command, ["-"], input=f"{line}\n")
    assert done.exit_code == 0, done.output
    assert f"{name}: " in done.output
    assert "  fix: " in done.output
    assert "Not when: " in done.output


# sequences, and what must not come


def test_a_sequence_matches_in_its_order_only() -> None:
    one = cause(signature("first line", "second line"))
    assert found("first line\nother\nsecond line\n", [one]) == {"x"}
    assert found("second line\nfirst line\n", [one]) == set()
    (seen,) = summary_of("first line\nsecond line\nfirst line\nsecond line\n", [one]).found
    assert (seen.count, seen.first, seen.last) == (2, 2, 4)


def test_what_must_not_come_between() -> None:
    one = cause(signature("first line", "second line", without=["other line"]))
    assert found("first line\nsecond line\n", [one]) == {"x"}
    assert found("first line\nother line\nsecond line\n", [one]) == set()
    assert found("first line\nother line\nfirst line\nsecond line\n", [one]) == {"x"}


def test_what_must_not_follow_until_the_next_process_begins() -> None:
    one = cause(signature("first line", never_then=["the end"]), begins="started")
    assert found("first line\n", [one]) == {"x"}
    assert found("first line\nmore\nthe end\n", [one]) == set()
    assert found("first line\nstarted\nthe end\n", [one]) == {"x"}


def test_the_last_line_of_a_process() -> None:
    one = cause(signature("last line", last=True), begins="started")
    assert found("some line\nlast line\n\n", [one]) == {"x"}, "an empty line is none"
    assert found("last line\nanother\n", [one]) == set()
    (seen,) = summary_of("started\nlast line\nstarted\nlast line\nmore\n", [one]).found
    assert (seen.count, seen.first, seen.last) == (1, 2, 2)


def test_a_sequence_does_not_go_on_in_the_next_process() -> None:
    one = cause(signature("first line", "second line"), begins="started")
    assert found("first line\nstarted\nsecond line\n", [one]) == set()


def test_lines_of_other_blocks_count_as_well() -> None:
    noise = "nothing to see here\n" * 60_000  # more than a block
    silent = cause(signature("last line", last=True))
    assert found(f"last line\n{noise}", [silent]) == set()
    assert found(f"{noise}last line\n", [silent]) == {"x"}
    both = cause(signature("first line", "second line"))
    assert found(f"first line\n{noise}second line\n", [both]) == {"x"}


# what has to be known


CONDITIONS = """\
[[signature]]
lines = ["the line"]
versions = ["uvicorn>=0.22,<0.24", "python>=3.12"]
exit = ["none", "SIGTERM"]
confidence = "low"
"""


@pytest.fixture
def conditional(tmp_path: Path) -> Card:
    path = scaffold("my-card", tmp_path, "uvicorn")[0]
    text = path.read_text()
    a, b = text.index("[[signature]]"), text.index("[[fix]]")
    path.write_text(text[:a] + CONDITIONS + "\n" + text[b:])
    return load(path)


@pytest.mark.parametrize(
    ("versions", "exit_", "matches"),
    [
        ({"uvicorn": "0.23.2", "python": "3.12.1"}, "none", True),
        ({"Uvicorn": "0.22.0", "python": "3.12"}, "SIGTERM", True),
        ({"uvicorn": "0.24.0", "python": "3.12.1"}, "none", False),
        ({"uvicorn": "0.23.2", "python": "3.11.9"}, "none", False),
        ({"uvicorn": "0.23.2", "python": "3.12.1"}, "0", False),
        ({"uvicorn": "0.23.2", "python": "3.12.1"}, "", False),
        ({"uvicorn": "0.23.2"}, "none", False),
    ],
)
def test_releases_and_the_exit_have_to_be_known(
    conditional: Card, versions: dict[str, str], exit_: str, matches: bool
) -> None:
    summary = summary_of("the line\n", [conditional], Facts(versions, exit_))
    assert bool(summary.found) is matches
    assert bool(summary.undecided) is not matches, "it is said that more would have to be known"


def test_what_a_log_says_itself_is_known(conditional: Card) -> None:
    given = {"uvicorn": "0.23.2"}
    path = 'File "/usr/lib/python3.12/asyncio/runners.py", line 1\n'
    killed = "app.service: State 'stop-sigterm' timed out. Killing.\n"
    status = "app.service: Main process exited, code=killed, status=9/KILL\n"
    assert found(f"{path}the line\n{killed}{status}", [conditional], Facts(given)) == {"my-card"}
    status = "app.service: Main process exited, code=killed, status=15/TERM\n"
    assert found(f"{path}the line\n{status}", [conditional], Facts(given)) == {"my-card"}
    assert found(f"{path}the line\n", [conditional], Facts(given)) == set()
    facts = Facts()
    facts.of_line("[2026-11-29 22:47:43 +0000] [7] [INFO] Starting gunicorn 27.0.1")
    assert facts.versions == {"gunicorn": "27.0.1"}


@pytest.mark.parametrize(
    ("text", "version", "holds"),
    [
        (">=0.22,<0.24", "0.22", True),
        (">=0.22,<0.24", "0.23.2", True),
        (">=0.22,<0.24", "0.24.0", False),
        ("==1.2", "1.2.0", True),
        ("!=1.2", "1.2.1", True),
        (">3", "3.0.0", False),
        ("<=3", "3.0.0rc1", True),
    ],
)
def test_ranges(text: str, version: str, holds: bool) -> None:
    assert version_range(text).holds(version) is holds


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('exit = ["none", "SIGTERM"]', 'exit = ["TERM"]', "exit"),
        ('exit = ["none", "SIGTERM"]', 'exit = "none"', "exit"),
        ('"python>=3.12"', '"python"', "versions"),
        ('"python>=3.12"', '"python~3.12"', "versions"),
        ('lines = ["the line"]', "lines = []", "lines"),
        ('lines = ["the line"]', 'lines = ["a|b"]', "lines"),
        ('lines = ["the line"]', 'lines = ["the line"]\nlast = 1', "last"),
    ],
)
def test_an_error_in_a_signature_names_its_field(conditional: Card, old: str, new: str, field: str) -> None:
    text = conditional.file.read_text()
    assert old in text
    conditional.file.write_text(text.replace(old, new))
    with pytest.raises(CardError) as caught:
        load(conditional.file)
    assert caught.value.field == f"signature[1].{field}"


def test_the_command_takes_what_the_log_does_not_say() -> None:
    text = 'INFO: 127.0.0.1:1 - "GET /events HTTP/1.1" 200 OK\nINFO:     Shutting down\n'
    plain = CliRunner().invoke(match_command, ["-"], input=text)
    assert "uvicorn-graceful-timeout-python-3-12 (low)" in plain.output
    asked = ["-", "--version", "uvicorn==0.23.2", "--version", "python==3.12.1"]
    known = CliRunner().invoke(match_command, asked, input=text)
    assert "uvicorn-graceful-timeout-python-3-12 (high)" in known.output
    hypercorn = CliRunner().invoke(match_command, ["-"], input=HEALTHY["hypercorn"][1])
    assert hypercorn.exit_code == 1
    assert "Cannot be told without --version" in hypercorn.output
    for words in (["-", "--exit", "dead"], ["-", "--version", "uvicorn"]):
        assert CliRunner().invoke(match_command, words, input="").exit_code == 2

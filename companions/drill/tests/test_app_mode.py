"""``lastcall drill --app``: the user's own application and route."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from companions.drill.tests.judging import TINY
from lastcall_drill.appmode import Observed, Subject, remedy
from lastcall_drill.cli.main import drill_group

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]
PROJECT = Path(__file__).parent / "projects" / "streams"
SEEN = Observed(
    complete=False,
    ended=0.9,
    error="",
    exited=1.0,
    exit_code=0,
    disconnected=None,
    task_ended=None,
    told=0.0,
    lifespan="complete",
    cut_in="DISCONNECTING",
    ours=True,
)
GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "stop-streams.md"


def drill(app: str, route: str, *words: str) -> Result:
    return CliRunner().invoke(
        drill_group, ["--app", app, "--route", route, "--app-dir", str(PROJECT), "--grace", "1", *words]
    )


def test_a_stream_that_hangs_is_named_with_the_remedy() -> None:
    result = drill("feeds:app", "/events", "--json", "-")
    assert result.exit_code == 1
    (row, *others) = json.loads(result.stdout)["results"]
    assert row["verdict"] == "fail"
    assert row["sentence"].startswith("/events was still open when lastcall came to DISCONNECTING, 0.9")
    assert "let it end when the server drains: with lastcall.drain_notice()" in row["sentence"]
    assert "lastcall --drain-close '/events'" in row["sentence"]
    assert "docs/how-to/stop-streams.md" in row["sentence"]
    assert GUIDE.exists()
    assert [one["verdict"] for one in others] == ["pass", "pass", "pass"]
    assert result.stderr.splitlines()[1] == (
        "python -m lastcall {app} --host 127.0.0.1 --port {port} --timeout-graceful-shutdown {grace}"
    )
    said = result.stderr[result.stderr.index("  FAIL") :].splitlines()
    (end,) = [number for number, line in enumerate(said) if line.strip().startswith("See docs/")]
    told = " ".join(" ".join(said[: end + 1]).split())
    assert told == f"FAIL The route ends by itself: {' '.join(row['sentence'].split())}"
    assert all(line.startswith(" " * 8) for line in said[1 : end + 1])
    assert max(map(len, said)) <= 100
    assert said[end + 1] == ""
    assert [line.split()[0] for line in said[end + 2 :]] == ["pass"] * 3
    moments = [(moment["source"], moment["what"]) for moment in row["moments"]]
    for moment in [
        ("drill", "signal"),
        ("app", "request"),
        ("app", "notice"),
        ("app", "disconnect"),
        ("process", "exit"),
    ]:
        assert moment in moments


def test_a_route_whose_path_has_to_be_quoted_is_seen_and_named() -> None:
    result = drill("feeds:app", "/two%20words?x=1", "--json", "-")
    row = json.loads(result.stdout)["results"][0]
    assert row["sentence"].startswith("/two%20words?x=1 was still open when lastcall came to DISCONNECTING")
    assert "lastcall --drain-close '/two words' ends it" in row["sentence"]
    observed = {moment["what"] for moment in row["moments"] if moment["who"] == "/two%20words"}
    assert observed == {"request", "notice", "disconnect", "task-end"}


def test_what_lastcall_was_told_to_close_passes() -> None:
    """The remedy for code that cannot be changed, as the failure spells it."""
    advice = remedy(SEEN, Subject("feeds:app", "/events", PROJECT))
    found = re.search(r'--server "(lastcall [^"]+)"', advice)
    assert found is not None
    command = found[1].replace("lastcall", f"{sys.executable} -m lastcall", 1) + " --drain-farewell 0.2"
    result = drill("feeds:app", "/events", "--server", command)
    assert result.exit_code == 0, result.output
    assert "pass  The route ends by itself: /events was closed 0." in result.stdout
    assert "as lastcall had been told to" in " ".join(result.stdout.split())


def test_a_command_without_the_grace_is_said_to_be_so() -> None:
    server = f"{sys.executable} {TINY} {{app}} --port {{port}} --fault waits-for-ever"
    result = drill("feeds:app", "/events", "--server", server, "--scale", "0.3")
    assert "the command has no {grace}" in " ".join(result.stdout.split())


def test_under_another_server_the_end_of_the_grace_decides() -> None:
    server = f"{sys.executable} {TINY} {{app}} --port {{port}} --grace {{grace}} --fault waits-for-ever"
    result = drill("feeds:app", "/events", "--server", server, "--scale", "0.3")
    assert result.exit_code == 1
    assert "/events was still open when the grace of 1 s was over; it never ended." in " ".join(result.stdout.split())
    assert "FAIL  The process exits: still running 9 s after its grace of 1 s\n" in result.stdout
    assert "FAIL  lifespan.shutdown is run to its end: lifespan.shutdown was not run" in result.stdout
    assert "FAIL  The exit counts as clean: no exit" in result.stdout


def test_another_server_is_the_one_that_is_installed_here() -> None:
    result = drill("feeds:app", "/events", "--server", "hypercorn==0.0.1")
    assert result.exit_code == 3
    assert "with --app the server runs beside your application, " in result.stderr


def test_a_stream_that_heeds_the_notice_passes() -> None:
    result = drill("feeds:app", "/polite")
    assert result.exit_code == 0, result.output
    assert "pass  The route ends by itself: /polite was complete 0." in result.stdout


def test_a_shutdown_that_raises_is_told() -> None:
    result = drill("feeds:broken", "/polite")
    assert result.exit_code == 1
    assert "pass  The route ends by itself" in result.stdout
    assert (
        "FAIL  lifespan.shutdown is run to its end: the application answered with lifespan.shutdown.failed"
        in result.stdout
    )
    assert "FAIL  The exit counts as clean: exit code 4: lifespan.shutdown failed" in result.stdout


@pytest.mark.parametrize(
    ("app", "route", "sentence"),
    [
        ("feeds:app", "/nowhere", "/nowhere answered with 404: name a route that stays open"),
        ("feeds:app", "/now", "/now was complete before the signal: name a route that stays open"),
        ("nothing:app", "/", "--app nothing:app: there is no module nothing (--app-dir "),
        ("feeds:nothing", "/", "--app feeds:nothing: module feeds has no attribute nothing (--app-dir "),
    ],
)
def test_what_cannot_be_judged_is_an_error(app: str, route: str, sentence: str) -> None:
    result = drill(app, route)
    assert result.exit_code == 1
    assert sentence in " ".join(result.output.split())
    assert "Traceback" not in result.output

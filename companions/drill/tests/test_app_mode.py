"""``lastcall drill --app``: the user's own application and route."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from companions.drill.tests.judging import TINY
from lastcall_drill.cli.main import drill_group

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
PROJECT = Path(__file__).parent / "projects" / "streams"
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
    assert row["sentence"].startswith("/events was still open when lastcall came to DISCONNECTING, ")
    assert "let it end when the server drains: with lastcall.drain_notice()" in row["sentence"]
    assert "lastcall --drain-close /events ends it" in row["sentence"]
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
    assert max(len(line) for line in said if not line.startswith(" " * 8 + "$ ")) <= 100
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


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("feeds:app", ["--route", "/events"]),
        ("feeds:app", ["--route", "/two%20words?x=1"]),
        ("feeds:app", ["--route", "/items/[1]"]),
        ("feeds:app", ["--route", "/polite", "--route", "/events", "--header", "X-Team: it's us"]),
        ("feeds:app", ["--route", "/events", "--route", "/two%20words"]),
        ("feeds:app", ["--route", "/events", "--server", f"{sys.executable} -m lastcall {{app}} --port {{port}}"]),
    ],
    ids=["plain", "quoted", "a glob's characters", "several", "two that fail", "a command"],
)
def test_the_remedy_that_is_printed_runs_as_it_is_printed(app: str, words: list[str], tmp_path: Path) -> None:
    asked = ["--app", app, *words, "--app-dir", str(PROJECT), "--grace", "1"]
    result = CliRunner().invoke(drill_group, asked)
    assert result.exit_code == 1, result.output
    (command,) = [line.strip()[2:] for line in result.stdout.splitlines() if line.strip().startswith("$ ")]
    assert "--drain-close" in command
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    assert "as lastcall had been told to" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("route", "sentence"),
    [
        ("/unavailable", "FAIL The route ends by itself: /unavailable got 503 "),
        ("/raises", "FAIL The route ends by itself: /raises got 500 "),
        # As one that takes event streams, lastcall's drill is told to come again, which is no answer either.
        ("/poll", "FAIL The route ends by itself: /poll was still open when lastcall came to CANCELLING"),
    ],
)
def test_an_answer_that_is_an_error_is_no_pass(route: str, sentence: str) -> None:
    """The connection ended well; its client has got nothing."""
    result = drill("feeds:app", route)
    assert result.exit_code == 1, result.output
    assert sentence in " ".join(result.stdout.split())
    # An option of the server mends what the server has cut, and not what the application says.
    assert ("--drain-close" in result.stdout) is (route == "/poll")


def test_under_another_server_an_error_is_no_pass_either() -> None:
    result = drill("feeds:app", "/poll", "--server", "hypercorn")
    assert result.exit_code == 1
    assert "FAIL  The route ends by itself: /poll " in result.stdout


@pytest.mark.parametrize(
    ("app", "route", "row", "named"),
    [
        ("feeds:app", "/mail", "app-exit-code", "Abandoned, threads that do not end: mailer"),
        ("feeds:app", "/poller", "app-exit-code", "A task of the application does not end: <Task"),
        ("feeds:broken", "/polite", "app-lifespan", "RuntimeError: the database did not close (feeds.py:"),
        ("feeds:hanging", "/polite", "app-lifespan", "The application's lifespan.shutdown did not complete within"),
        ("feeds:app", "/raises", "app-route-ends", "LookupError: nobody is subscribed (feeds.py:"),
    ],
    ids=["thread", "task", "lifespan raises", "lifespan hangs", "route raises"],
)
def test_who_is_to_blame_is_named_as_the_server_has_named_it(app: str, route: str, row: str, named: str) -> None:
    result = drill(app, route, "--json", "-")
    assert result.exit_code == 1
    sentences = {one["scenario"]: one["sentence"] for one in json.loads(result.stdout)["results"]}
    assert named in sentences.pop(row)
    assert not any(named in other for other in sentences.values()), "named once"


def test_a_request_with_method_body_and_headers() -> None:
    body = ["--body", '{"question": "why?"}', "--header", "X-Token: it's me"]
    result = drill("feeds:app", "/answers", *body)
    assert result.exit_code == 0, result.output
    assert "pass  The route ends by itself: POST /answers was complete " in result.stdout
    assert "POST /answers answered with 422: name a route that stays open" in " ".join(
        drill("feeds:app", "POST /answers", *body[:2]).output.split()
    )


def test_a_secret_is_in_no_report_and_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("Authorization: Bearer hush-1\n\nX-Team: us\n")
    given = ["--header", "X-API-Key: hush-2", "--header", f"@{tmp_path / 'headers'}", "--header", "X-Team: them"]
    page = tmp_path / "page.html"
    result = drill("feeds:app", "/events", *given, "--json", "-", "--html", str(page), "--junit", str(tmp_path / "x"))
    assert result.exit_code == 1
    assert f"--header @FILE --header @{tmp_path / 'headers'} --header 'X-Team: them'" in result.stderr
    assert "FILE holds the lines of X-API-Key" in " ".join(result.stderr.split())
    for text in (result.output, page.read_text(), (tmp_path / "x").read_text()):
        assert "hush" not in text
    missing = drill("feeds:app", "/events", "--header", "@/no/such")
    assert (missing.exit_code, "--header @/no/such: No such file" in missing.stderr) == (2, True)


def test_a_remedy_with_a_secret_runs_once_its_file_is_there(tmp_path: Path) -> None:
    secrets = ["--header", "Authorization: Bearer hush-1", "--header", "X-Team: us", "--header", "X-API-Key: hush-2"]
    result = drill("feeds:app", "/events", *secrets)
    assert result.exit_code == 1
    (command,) = [line.strip()[2:] for line in result.stdout.splitlines() if line.strip().startswith("$ ")]
    assert "hush" not in result.output
    said = " ".join(result.stdout.split())
    assert said.count("FILE holds the lines of Authorization and X-API-Key") == 1
    (tmp_path / "FILE").write_text("Authorization: Bearer hush-1\nX-API-Key: hush-2\n")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"


def test_a_body_comes_out_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "why.json").write_text('{"question": "why?"}')
    result = drill("feeds:app", "/answers", "--body", f"@{tmp_path / 'why.json'}", "--header", "x-token:it's me")
    assert result.exit_code == 0, result.output
    missing = drill("feeds:app", "/answers", "--body", "@/no/such")
    assert missing.exit_code == 2
    assert "--body @/no/such: No such file or directory" in missing.stderr


def test_several_routes_have_a_row_each_in_one_stop() -> None:
    asked = ["--route", "POST /answers", "--body", '{"question": "why?"}', "--header", "X-Token: it's me"]
    result = drill("feeds:app", "GET /polite", *asked, "--route", "GET /events", "--json", "-")
    assert result.exit_code == 1
    run = json.loads(result.stdout)
    assert {one["scenario"]: one["verdict"] for one in run["results"]} == {
        "app-route-ends[/polite]": "pass",
        "app-route-ends[POST /answers]": "pass",
        "app-route-ends[/events]": "fail",
        "app-exits": "pass",
        "app-lifespan": "pass",
        "app-exit-code": "pass",
    }
    assert [one["title"] for one in run["scenarios"]][:3] == [
        "/polite ends by itself",
        "POST /answers ends by itself",
        "/events ends by itself",
    ]


def test_a_websocket_is_judged_by_its_close_frame() -> None:
    """hypercorn closes it after the grace, if at all; lastcall says 1012 in time."""
    asked = ["--app", "feeds:app", "--websocket", "/room", "--app-dir", str(PROJECT), "--grace", "1"]
    result = CliRunner().invoke(drill_group, [*asked, "--server", "hypercorn", "--json", "-"])
    row = json.loads(result.stdout)["results"][0]
    assert row["verdict"] == "fail"
    assert row["sentence"].startswith("WebSocket /room ")
    assert ("app", "request", "WEBSOCKET:/room") in {(m["source"], m["what"], m["who"]) for m in row["moments"]}
    result = CliRunner().invoke(drill_group, [*asked, "--json", "-"])
    assert json.loads(result.stdout)["results"][0]["verdict"] == "pass"


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
    said = " ".join(result.stdout.split())
    assert "? Not reached, since the process did not exit: lifespan.shutdown is run to its end; The exit counts" in said
    assert "SIGKILL" not in said, "what the drill did itself is no fault of the server's"


def test_another_server_is_the_one_that_is_installed_here() -> None:
    result = drill("feeds:app", "/events", "--server", "hypercorn==0.0.1")
    assert result.exit_code == 3
    assert "with --app the server runs beside your application, " in result.stderr


def test_a_stream_that_heeds_the_notice_passes() -> None:
    result = drill("feeds:app", "/polite")
    assert result.exit_code == 0, result.output
    assert "pass  The route ends by itself: /polite was complete " in result.stdout


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
    said = " ".join(result.output.split())
    assert sentence in said
    assert (
        said.count("Not reached, since there was no stop: The process exits; lifespan.shutdown is run to its end") == 1
    )
    assert "Traceback" not in result.output

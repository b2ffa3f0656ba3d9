"""``verify``: it proves what is so, and says "not reproduced" of what is not. On tiny servers, without downloads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from companions.drill.tests.wheels import build_wheel, tiny_server
from lastcall_drill.cards.card_run import CardRun, Observed, RunSettings
from lastcall_drill.cards.format import Observation, Step
from lastcall_drill.cards.linear import Pattern
from lastcall_drill.cards.loader import load
from lastcall_drill.cards.scaffold import scaffold
from lastcall_drill.cards.verify import Outcome, judged, verify
from lastcall_drill.cli.cards import verify_command
from lastcall_drill.errors import DrillError
from lastcall_drill.process import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environments are shared: each takes two seconds or three."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def card(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A card on tinyserver, of which 1.0 does not stop, unless it has --limit, and 2.0 does."""
    build_wheel(tmp_path, "tinyserver", "1.0", tiny_server(stubborn=True))
    build_wheel(tmp_path, "tinyserver", "2.0", tiny_server(stubborn=False))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    path, _ = scaffold("tiny", tmp_path, "tinyserver")
    text = path.read_text().replace("within = 8", "within = 2").replace("seconds = 7.9", "seconds = 1.9")
    path.write_text(text.replace("seconds = 5", "seconds = 1.8"))
    return path


def test_a_card_that_is_right_is_proved(card: Path, tmp_path: Path) -> None:
    text = card.read_text()
    run = '[[run]]\nrole = "{}"\ntitle = "{}"\nrequirements = ["tinyserver==1.0"]\napp = "tiny.py"\noptions = {}\n\n'
    more = run.format("still-broken", "with --other", '["--other"]') + run.format("fixed", "limited", '["--limit"]')
    card.write_text(text.replace("[reproduction]", f"{more}[reproduction]"))

    files = [tmp_path / "evidence.json", tmp_path / "evidence.md"]
    done = CliRunner().invoke(verify_command, [str(card), "--json", str(files[0]), "--markdown", str(files[1])])
    assert done.exit_code == 0, done.output
    assert "  reproduced: yes, " in done.output

    (found,) = json.loads(files[0].read_text())["cards"]
    runs = {one["title"]: one for one in found["runs"]}
    assert {title: (one["role"], one["outcome"]) for title, one in runs.items()} == {
        "tinyserver 1.0": ("broken", "failure shown"),
        "tinyserver 2.0": ("fixed", "failure not shown"),
        "with --other": ("still-broken", "failure shown"),
        "limited": ("fixed", "failure not shown"),
        "lastcall": ("lastcall", "failure not shown"),
    }
    assert found["reproduced"]
    assert runs["tinyserver 1.0"]["versions"] == {"tinyserver": "1.0"}
    assert (runs["tinyserver 1.0"]["exit"], runs["tinyserver 1.0"]["seconds"]) == ("", None)
    assert "tinyserver: will not stop" in runs["tinyserver 1.0"]["output"]
    assert runs["tinyserver 2.0"]["exit"] == "exit code 0"
    assert runs["tinyserver 2.0"]["seconds"] < 1.8
    assert runs["limited"]["command"] == "tinyserver app:app --port {port} --limit"
    page = files[1].read_text()
    assert "| [tiny](#tiny) | reproduced: yes, " in page
    assert "### tinyserver 1.0: failure shown" in page
    assert str(tmp_path) not in page + files[0].read_text(), "the evidence names no path of this machine"


def test_a_card_with_a_wrong_claim_is_not_reproduced(card: Path) -> None:
    """It says that 2.0 is broken and that 1.0 mends it."""
    text = card.read_text().replace("==1.0", "==X").replace("==2.0", "==1.0").replace("==X", "==2.0")
    card.write_text(text)
    done = CliRunner().invoke(verify_command, [str(card), "--times", "2"])
    assert done.exit_code == 1
    wrong = [f"tinyserver 1.0 (run {turn} of 2): failure not shown" for turn in (1, 2)]
    wrong += [f"tinyserver 2.0 (run {turn} of 2): failure shown" for turn in (1, 2)]
    assert f"  reproduced: no; {'; '.join(wrong)}" in done.output.splitlines()
    assert "exit.not-within seconds=1.9: no, it exited with code 0, " in done.output


def test_a_fix_that_was_not_run_mends_nothing(card: Path) -> None:
    """A release that cannot be had, or does not start, shows no failure either."""
    text = card.read_text().replace('title = "tinyserver 2.0"', 'title = "tinyserver 2.0"\npython = "3.99"')
    card.write_text(text.replace('"--port", "{port}"]', '"--prot", "{port}"]'))
    proof = verify(load(card))
    assert not proof.reproduced
    assert [run.outcome for run in proof.runs[:2]] == [Outcome.ERROR, Outcome.ERROR]
    assert "tinyserver 1.0: the server exited with code 1 before it listened" in proof.sentence
    assert "tinyserver 2.0: Python 3.99 is asked for, and there is none" in proof.sentence


def test_an_interrupt_leaves_no_process(card: Path, cache: Path) -> None:
    words = [sys.executable, "-m", "lastcall", "drill", "verify", str(card)]
    card.write_text(card.read_text().replace("within = 2", "within = 60").replace("deadline = 30", "deadline = 90"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            until = time.monotonic() + 40
            while not (servers := running(str(cache))) and time.monotonic() < until:
                time.sleep(0.05)
            assert servers
            child.send_signal(signal.SIGTERM)
            output, _ = child.communicate(timeout=20)
        finally:
            child.kill()
    assert child.returncode == 130
    assert "Interrupted. Every process that verify has started is gone." in output
    assert running(str(cache)) == []


def running(part: str) -> list[int]:
    """Processes that run tinyserver from the environments below ``part``."""
    found = []
    for name in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().decode().split("\0") if name.isdigit() else []
        except OSError:
            continue
        if any(part in word and word.endswith("tinyserver") for word in words):
            found.append(int(name))
    return found


@pytest.mark.parametrize(
    ("failure", "healthy", "outcome"),
    [
        ([True, True], [False, True], Outcome.SHOWN),
        ([True, False], [True, True], Outcome.HEALTHY),
        ([True, False], [True, False], Outcome.NEITHER),
        ([True], [True], Outcome.NEITHER),
    ],
)
def test_the_outcome_of_a_run(failure: list[bool], healthy: list[bool], outcome: Outcome) -> None:
    def seen(holds: list[bool]) -> list[tuple[Observation, Observed]]:
        return [(Observation("exit.within", {"seconds": 1}), Observed(one, "")) for one in holds]

    assert judged(seen(failure), seen(healthy)) is outcome


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "expected the ids of cards, or --all"),
        (["uvicorn-451", "--all"], "expected the ids of cards, or --all"),
        (["uvicorn-0"], "uvicorn-0: expected the id of a card ("),
    ],
)
def test_what_verify_is_not_told(arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(verify_command, arguments)
    assert done.exit_code == 2
    assert sentence in done.output


# steps and observations, on a server that does what its paths say

SERVER = """
import signal, socket, sys, threading, time

def serve(connection):
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        more = connection.recv(65536)
        if not more:
            return
        data += more
    path = data.split()[1].decode()
    print("request", path, flush=True)
    body = b"hello\\nworld\\n"
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body))
    connection.sendall(body if path == "/whole" else body[:6])
    if path == "/reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
    if path != "/open":
        connection.close()
    else:
        open_.append(connection)

open_ = []
signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(7)))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
"""


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    (tmp_path / "server.py").write_text(SERVER)
    port = free_port()
    return RunSettings([sys.executable, "server.py", str(port)], dict(os.environ), tmp_path, port, 30.0)


def do(run: CardRun, *steps: Step) -> None:
    for step in steps:
        run.do(step)


def steps_of(text: str, directory: Path) -> tuple[list[Step], list[Observation]]:
    """Steps and observations as a card has them: so that the loader reads them, with its defaults."""
    path, _ = scaffold("steps", directory, "x")
    card = path.read_text()
    start = card.index("step = [")
    more = '{ see = "exit.within", seconds = 5 },\n]\n'
    path.write_text(card[:start] + text + f"healthy = [\n{more}")
    loaded = load(path).reproduction
    return list(loaded.steps), list(loaded.failure)


def test_steps_and_observations(settings: RunSettings, tmp_path: Path) -> None:
    steps, observations = steps_of(
        r"""
        step = [
            { do = "start" },
            { do = "request", client = "whole", path = "/whole" },
            { do = "read-until", client = "whole", pattern = "^world$" },
            { do = "wait-output", pattern = "request /whole" },
            { do = "send", client = "half", response = true, text = "GET /half HT" },
            { do = "send", client = "half", text = "TP/1.1\r\nHost: x\r\n\r\n" },
            { do = "wait-response", client = "half" },
            { do = "request", client = "reset", path = "/reset" },
            { do = "wait-close", client = "reset" },
            { do = "request", client = "open", path = "/open" },
            { do = "read-until", client = "open", pattern = "hello" },
            { do = "wait-response", client = "open", within = 0.1 },
            { do = "open", client = "silent" },
            { do = "sleep", seconds = 0.05 },
        ]
        failure = [
            { see = "client.status", client = "whole", status = 200 },
            { see = "client.complete", client = "whole" },
            { see = "client.saw", client = "whole", pattern = "^world$" },
            { see = "client.lacks", client = "half", pattern = "world" },
            { see = "client.incomplete", client = "half" },
            { see = "client.ended", client = "half", how = "fin" },
            { see = "client.ended", client = "reset", how = "rst" },
            { see = "client.ended", client = "open", how = "open" },
            { see = "client.incomplete", client = "open" },
            { see = "output.matches", pattern = "request /half" },
            { see = "output.lacks", pattern = "bye" },
            { see = "output.order", patterns = ["/whole", "/half", "/reset", "/open"] },
        ]
        """,
        tmp_path,
    )
    with CardRun(settings) as run:
        do(run, *steps)
        assert [(one.see, found.what) for one in observations if not (found := run.observe(one)).holds] == []
        # Each of them can fail.
        assert not run.observe(Observation("client.status", {"client": "whole", "status": 500})).holds
        assert not run.observe(Observation("client.ended", {"client": "half", "how": "open"})).holds
        assert not run.observe(Observation("exit.within", {"seconds": 5})).holds
        assert not run.observe(Observation("exit.not-within", {"seconds": 60})).holds, "so long was not waited"
        backwards = tuple(reversed(observations[-1].fields["patterns"]))
        assert not run.observe(Observation("output.order", {"patterns": backwards})).holds

        run.do(Step("signal", {"signal": "SIGTERM", "to": "group"}))
        run.do(Step("wait-exit", {"within": 10}))
        assert run.observe(Observation("exit.within", {"seconds": 10})).holds
        assert run.observe(Observation("exit.code", {"code": 7})).holds
        assert not run.observe(Observation("exit.signal", {"signal": "SIGTERM"})).holds
        assert run.observe(Observation("exit.not-within", {"seconds": 0.00001})).holds
        assert run.observe(observations[9]).holds, "the output is there after the exit"
        process = run.server
    assert process.exit_code == 7


def test_a_step_that_cannot_be_done_is_an_error_with_the_output(settings: RunSettings) -> None:
    pattern = Pattern("never written")
    with CardRun(settings) as run:
        do(run, Step("start", {"within": 10}))
        with pytest.raises(DrillError, match="never written"):
            run.do(Step("wait-output", {"pattern": pattern, "within": 0.1}))
        run.do(Step("request", {"client": "a", "path": "/open", "method": "GET", "body": ""}))
        with pytest.raises(DrillError, match="request /open"):
            run.do(Step("read-until", {"client": "a", "pattern": pattern, "within": 0.3}))
        with pytest.raises(DrillError):
            run.do(Step("websocket", {"client": "w", "path": "/half", "within": 5}))
        run.do(Step("signal", {"signal": "SIGKILL", "to": "server"}))
        run.do(Step("wait-exit", {"within": 10}))
        assert run.observe(Observation("exit.signal", {"signal": "SIGKILL"})).holds
        with pytest.raises(DrillError):
            run.do(Step("open", {"client": "b"}))


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_the_first_card_of_the_catalogue() -> None:
    done = CliRunner().invoke(verify_command, ["uvicorn-451"])
    assert done.exit_code == 0, done.output


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_whole_catalogue() -> None:
    done = CliRunner().invoke(verify_command, ["--all"])
    assert done.exit_code == 0, done.output

"""A server process: what is waited for, what is known of it, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lastcall_drill.errors import DrillError
from lastcall_drill.process import ServerProcess, exit_words, free_port, listens
from lastcall_drill.timeline import Timeline, read_events
from lastcall_drill.verdicts import Source
from testing.patience import Patience

pytestmark = pytest.mark.slow
SECONDS = 10.0
Launch = Callable[..., ServerProcess]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    made: list[ServerProcess] = []

    def start(code: str, *words: str, deadline: float = 60.0, timeline: Timeline | None = None) -> ServerProcess:
        argv = [sys.executable, "-c", code, *words]
        found = ServerProcess(
            argv, env=dict(os.environ), cwd=tmp_path, timeline=timeline or Timeline(), deadline=deadline
        )
        made.append(found)
        return found

    yield start
    for one in made:
        one.kill()


def wait_until(condition: Callable[[], object]) -> None:
    patience = Patience(SECONDS)
    while not condition():
        assert not patience.over, "it did not come true"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_an_exit_is_seen_with_its_time_its_code_and_its_output(launch: Launch) -> None:
    timeline = Timeline()
    process = launch("print('out', flush=True); import sys; sys.exit(3)", timeline=timeline)
    assert process.wait(SECONDS) == 3
    assert (process.output(), process.exit_code, process.killed) == ("out\n", 3, False)
    assert process.exited is not None
    assert [(one.what, one.detail) for one in timeline.moments if one.what == "exit"] == [("exit", "exit code 3")]
    process.kill()
    assert process.output() == "out\n"


def test_one_that_runs_has_no_code_yet(launch: Launch) -> None:
    process = launch("import time; time.sleep(1000)")
    assert (process.wait(0.01), process.exit_code) == (None, None)
    process.signal(signal.SIGTERM)
    assert process.wait(SECONDS) == -signal.SIGTERM
    assert exit_words(-signal.SIGTERM) == "ended by SIGTERM"


def test_the_first_signal_is_the_zero_of_all_moments(launch: Launch) -> None:
    timeline = Timeline()
    process = launch("import time; time.sleep(1000)", timeline=timeline)
    process.signal(signal.SIGCONT)
    process.signal(signal.SIGKILL)
    process.wait(SECONDS)
    moments = timeline.moments
    assert [one.what for one in moments] == ["start", "signal", "signal", "exit"]
    assert moments[0].at < 0 == moments[1].at < moments[2].at <= moments[3].at


def test_children_that_have_left_the_session_are_killed_too(launch: Launch, tmp_path: Path) -> None:
    process = launch(
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        open('grandchild', 'w').write(str(os.getpid()))\n"
        "        time.sleep(1000)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    file = tmp_path / "grandchild"
    wait_until(lambda: file.exists() and file.read_text())
    pid = int(file.read_text())
    assert process.wait(SECONDS) == 0
    assert pid in process.children()
    process.kill()
    wait_until(lambda: not alive(pid))
    assert process.children() == []


def test_the_deadline_kills(launch: Launch) -> None:
    process = launch("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(1000)", deadline=0.2)
    wait_until(lambda: not process.running)
    assert process.killed
    assert process.exit_code is None, "that is no exit of its own"
    assert "killed" in {one.what for one in process._timeline.events}


def test_a_command_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DrillError):
        ServerProcess(["no-such-server"], env={}, cwd=tmp_path, timeline=Timeline(), deadline=1.0)
    with pytest.raises(DrillError):
        ServerProcess(["/no/such/server"], env={}, cwd=tmp_path, timeline=Timeline(), deadline=1.0)
    with pytest.raises(DrillError):
        ServerProcess([str(tmp_path)], env={}, cwd=tmp_path, timeline=Timeline(), deadline=1.0)


def test_a_port_is_waited_for_without_a_connection_to_it(launch: Launch) -> None:
    port = free_port()
    assert not listens("127.0.0.1", port)
    process = launch(
        "import socket, sys, time\n"
        "time.sleep(0.2)\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "listener.settimeout(0.3)\n"
        "try: listener.accept()\n"
        "except TimeoutError: sys.exit(7)\n",
        str(port),
    )
    process.wait_for_port(port, SECONDS)
    assert process.wait(SECONDS) == 7


def test_a_server_that_ends_before_it_listens_is_an_error_with_its_last_words(launch: Launch) -> None:
    process = launch("raise SystemExit('the port is taken')")
    with pytest.raises(DrillError, match="the port is taken"):
        process.wait_for_port(free_port(), SECONDS)


def test_no_port_is_given_twice() -> None:
    assert len({free_port() for _ in range(50)}) == 50


def test_events_are_read_as_far_as_they_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "events"
    assert read_events(file) == []
    file.write_text("2.5 request /a\n1.0 task-end /a:3 returned at once\nnonsense\n\nx y z\n9 cut")
    found = read_events(file)
    assert [(one.at, one.what, one.who, one.detail) for one in found] == [
        (2.5, "request", "/a", ""),
        (1.0, "task-end", "/a:3", "returned at once"),
    ]
    timeline = Timeline(1.0)
    timeline.add(Source.DRILL, "note", at=2.0)
    timeline.join(file)
    assert [(one.at, one.what) for one in timeline.moments] == [(0.0, "task-end"), (1.0, "note"), (1.5, "request")]


def test_a_process_that_nobody_waited_for_is_ended_and_not_killed(launch: Launch) -> None:
    """Its scenario was over before it was asked to end: no signal of the drill's is an exit of the server's."""
    process = launch("import time; print('up', flush=True); time.sleep(60)")
    process.kill()
    assert process.exit_code is None
    said = {one.what: one.detail for one in process._timeline.events}
    assert "killed" not in said
    assert said["ended"] == "no longer needed when its scenario was over"
    assert said["exit"] == "ended by the drill"


def test_a_process_that_did_not_end_in_its_time_is_killed(launch: Launch) -> None:
    process = launch("import time; time.sleep(60)")
    assert process.wait(0.01) is None
    process.kill()
    assert process.exit_code is None
    assert [one.what for one in process._timeline.events if one.what in ("killed", "ended")] == ["killed"]

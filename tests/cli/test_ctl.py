"""``lastcall ctl``: the real command as a process, against a stand-in behind a real control socket."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lastcall.cli.ctl_tables import inflight_view, plain, printable, seconds, status_view
from lastcall.supervisor.control import Outcome
from testing.control import Serving, StandIn, serving
from testing.process import ServerProcess
from testing.service import Service

STATUS = {
    "app": "main:app",
    "addresses": ["http://127.0.0.1:8000"],
    "pid": 4242,
    "state": "serving",
    "doing": "",
    "generation": 2,
    "restarts": 0,
    "degraded": ["slot 1 has no worker: worker 3 accepts in its place"],
    "workers": [
        {"worker": 3, "slot": 0, "generation": 2, "pid": 4300, "state": "serving", "age": 7400.0, "rss": 52428800},
        {"worker": 12, "slot": 1, "generation": 1, "pid": None, "state": "draining", "age": 0.5, "rss": None},
    ],
}


# The machine may have services of its own in /run/lastcall.
PREPARED = "from lastcall.supervisor import runtime_dir; runtime_dir.RUN = {run!r}; import sys; "
MAIN = "from lastcall.cli.main import main; main()"


class Command:
    """``lastcall ctl …`` in an environment where only the services of this test are found."""

    def __init__(self, runtime: Path) -> None:
        self.prepared = PREPARED.format(run=str(runtime / "run"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LASTCALL_")}
        self.env = {**kept, "XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(runtime), "COLUMNS": "120", "TERM": "xterm"}

    def start(self, *words: str, stdout: int = subprocess.PIPE, first: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", self.prepared + first + MAIN, "ctl", *words],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=20)
        return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.fixture
def ctl(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Serving]:
    service = StandIn()
    service.answer = dict(STATUS)
    (tmp_path / "lastcall").mkdir(mode=0o700)
    with serving(str(tmp_path / "lastcall" / "8000.sock"), service=service) as found:
        yield found


pytestmark = pytest.mark.slow


def test_the_status_is_a_table_of_plain_text_where_nobody_watches(ctl: Command, parent: Serving) -> None:
    done = ctl.run("status")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["3", "0", "2", "4300", "serving", "2", "h", "3", "min", "50", "MiB"] in rows
    assert ["12", "1", "1", "-", "draining", "0.50", "s", "-"] in rows
    assert "slot 1 has no worker: worker 3 accepts in its place" in done.stdout


def test_machines_get_json(ctl: Command, parent: Serving) -> None:
    found = json.loads(ctl.run("status", "--json").stdout)
    assert {name: found[name] for name in STATUS} == STATUS
    parent.service.requests = [{"path": "/slow", "age": 3.25}]
    assert json.loads(ctl.run("inflight", "--json").stdout) == {"inflight": [{"path": "/slow", "age": 3.25}]}


def test_what_a_client_has_sent_cannot_steer_the_terminal(ctl: Command, parent: Serving) -> None:
    parent.service.requests = [
        {"worker": 1, "method": "GET", "path": "/\x1b[2J\x07[red]x\u202e", "kind": "stream", "age": 3.0}
    ]
    shown = ctl.run("inflight").stdout
    assert "[red]" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)


def on_terminal(ctl: Command, *words: str, first: str = "") -> str:
    """What the command writes to a terminal; stops it when it has written a whole view, if it does not itself."""
    ours, theirs = pty.openpty()
    process = ctl.start(*words, stdout=theirs, first=first)
    os.close(theirs)
    written, interrupted = b"", False
    try:
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: nobody has the other end any more
                break
            if not data:
                break
            written += data
            if not interrupted and "--watch" in words and written.count(b"draining") >= 2:
                interrupted = True
                process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        os.close(ours)
        process.kill()
    assert (process.returncode, err) == (0, "")
    return written.decode()


def test_on_a_terminal_the_table_is_drawn_and_watch_draws_it_again(ctl: Command, parent: Serving) -> None:
    once = on_terminal(ctl, "status")
    assert "━" in once or "─" in once
    assert "draining" in once
    live = on_terminal(ctl, "status", "--watch", "--every", "0.1")
    assert live.count("draining") >= 2
    assert "\x1b[?1049h" in live
    assert live.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in live, "the terminal is as it was"


def test_without_rich_the_table_is_plain_text_on_a_terminal_too(ctl: Command, parent: Serving) -> None:
    first = "sys.modules['rich'] = None; "
    once = on_terminal(ctl, "status", first=first)
    assert once.replace("\r\n", "\n") == plain(status_view({**STATUS, "version": "0.1.0"})) + "\n"
    assert on_terminal(ctl, "status", "--watch", "--every", "0.1", first=first).count("draining") >= 2


def test_watch_is_a_document_per_line_for_machines(ctl: Command, parent: Serving) -> None:
    process = ctl.start("status", "--watch", "--json", "--every", "0.1")
    assert process.stdout is not None
    assert [json.loads(process.stdout.readline())["pid"] for _ in range(3)] == [4242] * 3
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def test_watch_ends_when_the_service_does(ctl: Command, parent: Serving) -> None:
    process = ctl.start("status", "--watch", "--json", "--every", "0.1")
    assert process.stdout is not None
    assert process.stdout.readline()
    parent.close()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (("reload",), ("reload", {"canary": False})),
        (("reload", "--canary"), ("reload", {"canary": True})),
        (("promote",), ("promote", {})),
        (("rollback",), ("rollback", {})),
        (("scale", "4"), ("scale", {"workers": 4})),
        (("stop",), ("stop", {"force": False})),
        (("stop", "--force"), ("stop", {"force": True})),
        (("stacks",), ("stacks", {})),
        (("upgrade",), ("upgrade", {})),
    ],
)
def test_an_order_is_given_and_its_outcome_told(
    ctl: Command, parent: Serving, words: tuple[str, ...], order: tuple[str, dict[str, object]]
) -> None:
    done = ctl.run(*words)
    assert parent.service.taken == [order]
    assert (done.returncode, done.stdout) == (0, f"{order[0]} is done\n")
    assert done.stderr == f"begun: {order[0]}\n"


def test_a_reload_that_is_rolled_back_fails_the_command(ctl: Command, parent: Serving) -> None:
    parent.service.outcomes["reload"] = Outcome(False, "Rolled back: GET /docs is 500", {"failure": "/docs"})
    done = ctl.run("reload")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Rolled back: GET /docs is 500" in done.stderr
    document = json.loads(ctl.run("reload", "--json").stdout.splitlines()[-1])
    assert document["report"] == {"failure": "/docs"}


def test_why_an_order_failed_is_shown_once_where_the_log_has_said_it(ctl: Command, parent: Serving) -> None:
    # The stand-in logs this line when an order comes, as the parent's fleet does when a reload has failed.
    parent.service.outcomes["reload"] = Outcome(False, "begun: reload")
    done = ctl.run("reload")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("begun: reload") == 1


def test_who_leaves_does_not_take_the_order_back(ctl: Command, parent: Serving) -> None:
    parent.service.slow.add("reload")
    process = ctl.start("reload")
    assert parent.service.begun.wait(10)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "The order goes on" in err
    parent.service.settle(Outcome(True, ""))


@pytest.mark.parametrize(("name", "code"), [("stop", 0), ("reload", 1)])
def test_the_end_of_the_service_is_what_a_stop_wanted(ctl: Command, parent: Serving, name: str, code: int) -> None:
    parent.service.slow.add(name)
    process = ctl.start(name)
    assert parent.service.begun.wait(10)
    parent.close()
    process.communicate(timeout=20)
    assert process.returncode == code


@pytest.mark.parametrize(("name", "code"), [("stop", 0), ("reload", 1)])
def test_so_is_its_sudden_death(ctl: Command, tmp_path: Path, name: str, code: int) -> None:
    path = str(tmp_path / "c.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def die() -> None:
            client, _ = listening.accept()
            request = b""
            while not request.endswith(b"}"):
                request += client.recv(65536)
            client.sendall(b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11\r\n{"event":"taken"}\r\n')
            client.close()

        thread = threading.Thread(target=die)
        thread.start()
        done = ctl.run("--socket", path, name)
        thread.join()
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


# -- which service, and what may be wrong ---------------------------------------------------------------


def test_without_a_service_it_says_where_one_would_come_from(ctl: Command) -> None:
    done = ctl.run("status")
    assert done.returncode == 3
    assert "--supervise" in done.stderr


def test_several_are_listed_and_one_is_chosen_by_its_name(ctl: Command, parent: Serving, tmp_path: Path) -> None:
    with serving(str(tmp_path / "lastcall" / "9000.sock")) as other:
        done = ctl.run("reload")
        assert done.returncode == 2
        assert "8000" in done.stderr
        assert "9000" in done.stderr
        assert "main:app" in done.stderr
        assert ctl.run("reload", "--socket", "9000").returncode == 0
        assert ctl.run("--socket", "9000", "promote").returncode == 0
        assert ctl.run("--socket", other.path, "stacks").returncode == 0
        assert [name for name, _ in other.service.taken] == ["reload", "promote", "stacks"]
        assert parent.service.taken == []
        done = ctl.run("status", "--socket", "7000")
        assert done.returncode == 3
        assert "8000" in done.stderr


def test_the_servers_variable_is_read_too(ctl: Command, parent: Serving, tmp_path: Path) -> None:
    with serving(str(tmp_path / "elsewhere.sock")) as other:
        ctl.env["LASTCALL_CONTROL_SOCKET"] = other.path
        assert ctl.run("promote").returncode == 0
        assert ctl.run("--socket", "8000", "rollback").returncode == 0
        assert ([n for n, _ in other.service.taken], [n for n, _ in parent.service.taken]) == (
            ["promote"],
            ["rollback"],
        )


@pytest.mark.parametrize("words", [("scale",), ("scale", "0"), ("scale", "many"), ("nonsense",), ("status", "now")])
def test_usage_is_two(ctl: Command, parent: Serving, words: tuple[str, ...]) -> None:
    done = ctl.run(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert parent.service.taken == []


def test_a_path_without_a_service_is_three(ctl: Command, tmp_path: Path) -> None:
    crashed = str(tmp_path / "crashed.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(crashed)
    for path in (crashed, str(tmp_path / "nothing.sock")):
        done = ctl.run("--socket", path, "status")
        assert done.returncode == 3
        assert done.stderr.startswith(f"Error: no service listens on {path}; ")


def test_a_server_without_a_parent_has_none_and_the_line_says_so(ctl: Command, tmp_path: Path) -> None:
    address = tmp_path / "app.sock"
    Service(tmp_path, ready=False)  # writes the application
    with ServerProcess(["app:app", "--bind", f"unix:{address}"], None, None, tmp_path) as server:
        server.wait_ready()
        for words in ((), ("--socket", str(address)), ("--socket", str(tmp_path / "nobody"))):
            done = ctl.run("status", *words)
            assert done.returncode != 0
            assert done.stderr.count("\n") == 1
            assert "--supervise" in done.stderr
        assert server.stop() == 0


def test_something_else_behind_the_socket_is_a_line(ctl: Command, tmp_path: Path) -> None:
    path = str(tmp_path / "c.sock")
    answers = [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n<ht>",
        b"",
        b"HTTP/1.1 500\r\n\r\n",
    ]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            for one in answers:
                client, _ = listening.accept()
                client.recv(65536)
                client.sendall(one)
                client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        for _ in answers:
            done = ctl.run("--socket", path, "status")
            assert done.returncode == 1
            assert done.stderr.startswith("Error: ")
            assert "Traceback" not in done.stderr
        thread.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="to become somebody else takes root")
def test_somebody_else_is_told_that_it_is_not_theirs() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        with serving(f"{directory}/c.sock") as parent:
            program = (
                # Once as root, so that all is imported: the tests' Python may be where others cannot read.
                "import contextlib, os; from lastcall.cli.main import main; "
                f"stop, status = (['ctl', '--socket', {parent.path!r}, name] for name in ('stop', 'status'))\n"
                "with contextlib.suppress(SystemExit): main(status)\n"
                "os.setgroups([]); os.setgid(65534); os.setuid(65534); main(stop)"
            )
            command = [sys.executable, "-c", program]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode == 1
            assert done.stderr.count("\n") == 1
            assert "sudo" in done.stderr
            # And where the mode was widened by mistake, the kernel's word about the peer counts.
            os.chmod(parent.path, 0o666)
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode == 1
            assert "the user 0" in done.stderr
            assert parent.service.taken == []


def test_serving_imports_nothing_of_it() -> None:
    program = (
        "import sys, lastcall.cli.main, lastcall.server; "
        "unwanted = ('rich', 'watchfiles', 'http.client', 'lastcall.cli.ctl'); "
        "print([name for name in sys.modules if name.startswith(unwanted)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "[]\n"


# -- words ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00 s"), (59.94, "59.9 s"), (60, "1 min 0 s"), (3599.9, "59 min 59 s"), (86400 * 3, "3 d 0 h"), (None, "-")],
)
def test_times_are_told_in_the_units_of_people(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_an_answer_of_another_version_is_shown_as_far_as_it_is_understood() -> None:
    assert plain(status_view({"workers": [{"worker": 1, "mood": "good"}, 7], "new": {}})) == "worker\n     1"
    assert plain(status_view({})) == "no worker runs"
    assert plain(inflight_view([])) == "nothing is in flight"
    assert printable("a\nb\x00ü") == "a\\nb\\x00ü"

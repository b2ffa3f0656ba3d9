"""``--reload``: the port never bounces, open streams do not block it, and what cannot be imported changes nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.peer import PATIENCE, Peer
from testing.process import ServerProcess

pytest.importorskip("watchfiles")

APP = """
import asyncio, os
from answer import ANSWER


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    events = scope["path"] == "/events"
    headers = [(b"content-type", b"text/event-stream")] if events else []
    if scope["path"] == "/env":
        body = os.environ.get("COLOUR", "none").encode()
    else:
        body = ANSWER
    if not events:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while events:
        await send({"type": "http.response.body", "body": b"data: " + ANSWER + b"\\n\\n", "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": body})
"""
STREAM_SECONDS = 3.0
"""What a stream is given at most by a reload: --timeout-interrupt."""


class Project:
    """A directory with an application that is edited while it is served."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "app.py").write_text(APP)
        self.answer("one")

    def answer(self, text: str) -> None:
        """Save, as editors do, a module of which the application's answer comes."""
        self.save("answer.py", f"ANSWER = {text.encode()!r}\n")

    def save(self, name: str, text: str) -> None:
        new = self.directory / f"{name}~"
        new.write_text(text)
        new.replace(self.directory / name)

    def serve(self, *options: str) -> ServerProcess:
        control = ("--control-socket", str(self.directory / "control.sock"))
        return ServerProcess(["--reload", *control, *options], "app:app", cwd=self.directory)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def server(project: Project) -> Iterator[ServerProcess]:
    with project.serve() as found:
        found.wait_ready()
        found.wait_for("Watching for changes")
        yield found


def get(server: ServerProcess, path: str = "/") -> str:
    with Peer(server.addresses[0]) as peer:
        return peer.get(path).body.decode()


def wait_for(server: ServerProcess, wanted: str, path: str = "/", timeout: float = 20.0) -> None:
    """Ask until the answer is ``wanted``. Every connection in between has to be answered."""
    deadline = time.monotonic() + timeout
    while (found := get(server, path)) != wanted:
        assert time.monotonic() < deadline, f"{found!r} and not {wanted!r}\n{server.stderr}"
        time.sleep(0.02)


def changed(server: ServerProcess, project: Project, text: str) -> None:
    """Save until the change is served: the first one may come before the watch is set up."""
    deadline = time.monotonic() + 20
    while get(server) != text:
        assert time.monotonic() < deadline, server.stderr
        project.answer(text)
        until = time.monotonic() + 5
        while get(server) != text and time.monotonic() < until:
            time.sleep(0.02)


def test_what_is_saved_is_served(server: ServerProcess, project: Project) -> None:
    changed(server, project, "two")
    for text in ("three", "four"):
        project.answer(text)
        wait_for(server, text)
    assert server.stop() == 0


def test_an_open_stream_does_not_block_a_reload_and_ends_soon(server: ServerProcess, project: Project) -> None:
    changed(server, project, "two")
    with Peer(server.addresses[0]) as tab:
        tab.request("/events")
        tab.head()
        assert tab.chunk() == b"data: two\n\n"
        begun = time.monotonic()
        project.answer("three")
        wait_for(server, "three")
        served = time.monotonic()
        assert tab.chunk() == b"data: two\n\n", "the old worker still has its stream"
        tab.rest()
        ended = time.monotonic()
        # Served as soon as it is ready, and not when the stream has ended.
        assert served <= ended
        assert ended - served <= STREAM_SECONDS + 5
        assert ended > begun
        # The browser comes again, and gets the new one.
    with Peer(server.addresses[0]) as tab:
        tab.request("/events")
        tab.head()
        assert tab.chunk() == b"data: three\n\n"


def test_a_syntax_error_keeps_the_old_worker_and_is_shown_once(server: ServerProcess, project: Project) -> None:
    changed(server, project, "two")
    shown = server.stderr.count("Traceback") + server.stderr.count("SyntaxError: ")
    project.save("answer.py", "ANSWER = (\n")
    server.wait_for(r"SyntaxError: ", 20)
    server.wait_for("Reload failed", 20)
    for _ in range(5):
        assert get(server) == "two"
    project.answer("three")
    wait_for(server, "three")
    assert shown == 0
    assert server.stderr.count("SyntaxError: '(' was never closed\n") == 1, server.stderr
    assert server.stop() == 0


def test_a_start_that_cannot_be_imported_waits_for_the_repair(project: Project) -> None:
    project.save("answer.py", "ANSWER = (\n")
    with project.serve() as server:
        server.wait_for("SyntaxError", 20)
        deadline = time.monotonic() + 20
        while server.returncode is None and not server.addresses and time.monotonic() < deadline:
            project.answer("repaired")
            with contextlib.suppress(AssertionError):
                server.wait_ready(2.0)
        assert server.returncode is None, server.stderr
        wait_for(server, "repaired")
        assert server.stop() == 0


def hammer(server: ServerProcess, stop: threading.Event, failures: list[str]) -> int:
    """Connections one after another, as a browser's that loads a page again and again."""
    count = 0
    while not stop.is_set():
        try:
            get(server)
            count += 1
        except Exception as exc:
            failures.append(repr(exc))
    return count


def test_the_port_refuses_nobody_while_it_reloads(server: ServerProcess, project: Project) -> None:
    changed(server, project, "two")
    stop, failures = threading.Event(), list[str]()
    clients = [threading.Thread(target=hammer, args=(server, stop, failures)) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        for text in ("three", "four", "five"):
            project.answer(text)
            wait_for(server, text)
    finally:
        stop.set()
        for client in clients:
            client.join(PATIENCE)
    assert failures == []
    assert server.stop() == 0


def test_a_kept_alive_connection_gets_the_new_answer_without_a_new_connection(
    server: ServerProcess, project: Project
) -> None:
    changed(server, project, "two")
    with Peer(server.addresses[0]) as browser:
        assert browser.get().body == b"two"
        project.answer("three")
        wait_for(server, "three")
        deadline = time.monotonic() + 20
        while browser.get().body != b"three":
            assert time.monotonic() < deadline, server.stderr
            time.sleep(0.02)


def test_nothing_is_checked_that_was_not_asked_for(project: Project) -> None:
    project.save("app.py", APP.replace("    events =", "    print(scope['path'], flush=True)\n    events ="))
    with project.serve() as server:
        server.wait_ready()
        changed(server, project, "two")
        project.answer("three")
        wait_for(server, "three")
        assert server.stop() == 0
    assert {"/docs", "/openapi.json"}.isdisjoint(server.stdout.split())


def test_a_change_of_the_environment_file_is_a_reload(project: Project) -> None:
    project.save(".env", "COLOUR=red\n")
    with project.serve("--env-file", ".env") as server:
        server.wait_ready()
        assert get(server, "/env") == "red"
        changed(server, project, "two")
        project.save(".env", "COLOUR=blue\n")
        wait_for(server, "blue", "/env")
        assert server.stop() == 0


def test_many_saves_at_once_are_one_reload(server: ServerProcess, project: Project) -> None:
    changed(server, project, "two")
    before = server.stderr.count("Changed: ")
    for n in range(10):
        project.save(f"module{n}.py", "X = 1\n")
    project.answer("three")
    wait_for(server, "three")
    assert server.stderr.count("Changed: ") == before + 1


@pytest.mark.parametrize(
    ("options", "hidden", "wanted"),
    [
        (("--reload-dir", "nope"), "", "--reload-dir"),
        ((), "watchfiles", "pip install 'lastcall[reload]'"),
    ],
)
def test_what_cannot_be_watched_is_a_line(project: Project, options: tuple[str, ...], hidden: str, wanted: str) -> None:
    program = f"import sys; sys.modules[{hidden!r}] = None; from lastcall.cli.main import main; main()"
    command = [sys.executable, "-c", program, "app:app", "--reload", "--port", "0"]
    with ServerProcess(options, command=command, cwd=project.directory) as server:
        assert server.wait(20) == 2
    assert wanted in server.stderr
    assert server.stderr.count("\n") == 1

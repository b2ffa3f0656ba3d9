"""The control API over its real socket, with a stand-in for the parent."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lastcall.base.errors import StartupError
from lastcall.supervisor.control import LINES_KEPT, Outcome
from lastcall.supervisor.control_server import CONNECTIONS_AT_MOST, peer_uid
from testing.control import Serving, serving
from testing.peer import Peer, eventually


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Serving]:
    with serving(str(tmp_path / "c.sock")) as found:
        yield found


def ask(parent: Serving, method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, Any]:
    with Peer(parent.path) as peer:
        peer.request(path, f"content-length: {len(body)}", *headers, method=method, body=body)
        answer = peer.answer()
        return answer.status, [json.loads(line) for line in answer.body.splitlines()]


def order(parent: Serving, path: str, body: bytes = b"") -> tuple[int, Any]:
    """An order's answer as one document."""
    status, (document,) = ask(parent, "POST", path, body, "accept: application/json")
    return status, document


def test_status_and_inflight_are_documents(parent: Serving) -> None:
    parent.service.answer = {"pid": 7}
    parent.service.requests = [{"path": "/slow", "age": 3.5}]
    status, (found,) = ask(parent, "GET", "/status")
    assert (status, found["pid"], found["api"]) == (200, 7, 1)
    assert ask(parent, "GET", "/inflight") == (200, [{"inflight": [{"path": "/slow", "age": 3.5}]}])


def test_an_order_is_answered_line_by_line_until_it_is_settled(parent: Serving) -> None:
    parent.service.outcomes["reload"] = Outcome(False, "rolled back", {"why": "smoke"})
    status, lines = ask(parent, "POST", "/reload", b'{"canary": true}')
    assert status == 200
    assert [line["event"] for line in lines] == ["taken", "log", "settled"]
    assert lines[1]["text"] == "begun: reload"
    assert lines[2] == {"event": "settled", "ok": False, "text": "rolled back", "report": {"why": "smoke"}}
    assert parent.service.taken == [("reload", {"canary": True})]


def test_who_asks_for_json_gets_one_document_and_a_status_that_says_it(parent: Serving) -> None:
    parent.service.outcomes["promote"] = Outcome(False, "there is no canary")
    assert order(parent, "/promote") == (409, {"ok": False, "text": "there is no canary", "report": None})
    assert order(parent, "/scale", b'{"workers": 3}') == (200, {"ok": True, "text": "scale is done", "report": None})


def test_what_the_service_is_doing_is_told_when_it_changes(parent: Serving) -> None:
    parent.service.slow.add("reload")
    with Peer(parent.path) as peer:
        peer.request("/reload", "content-length: 0", method="POST")
        peer.head()
        seen = [json.loads(line) for line in peer.chunk().splitlines()]
        parent.service.answer = {"doing": "canary: 420 requests"}
        while seen[-1]["event"] != "doing":
            seen += [json.loads(line) for line in peer.chunk().splitlines()]
        assert seen[-1]["text"] == "canary: 420 requests"
        parent.service.settle(Outcome(True, "promoted"))
        while seen[-1]["event"] != "settled":
            seen += [json.loads(line) for line in peer.chunk().splitlines()]
    assert seen[-1]["text"] == "promoted"


def test_lines_of_other_threads_are_told_too_and_those_of_a_slow_client_are_bounded(parent: Serving) -> None:
    parent.service.slow.add("reload")
    with Peer(parent.path) as peer:
        peer.request("/reload", "content-length: 0", method="POST")
        assert parent.service.begun.wait(10)
        for n in range(3 * LINES_KEPT):
            logging.getLogger("lastcall.error").warning("line %d", n)
        parent.service.settle(Outcome(True, ""))
        peer.head()
        lines = [json.loads(line) for chunk in iter(peer.chunk, b"") for line in chunk.splitlines()]
    assert f"line {3 * LINES_KEPT - 1}" in [line.get("text") for line in lines]


@pytest.mark.slow
def test_an_order_goes_on_without_its_client(parent: Serving) -> None:
    parent.service.slow.add("reload")
    with Peer(parent.path) as peer:
        peer.request("/reload", "content-length: 0", method="POST")
        peer.head()
    assert parent.service.begun.wait(10)
    eventually(lambda: parent.server._tasks.count == 0)  # the answer's task is cancelled
    parent.service.settle(Outcome(True, "done"))
    eventually(lambda: parent.service.settled == ["reload"])


def test_an_exception_of_an_order_is_a_failure_that_names_it(parent: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(name: str, /, **_: Any) -> Outcome:
        raise KeyError(name)

    monkeypatch.setattr(parent.service, "order", fail)
    status, document = order(parent, "/upgrade")
    assert status == 409
    assert "KeyError" in document["text"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/status", b"", 405),
        ("GET", "/reload", b"", 405),
        ("GET", "/secrets", b"", 404),
        ("POST", "/scale", b"", 400),
        ("POST", "/scale", b'{"workers": 0}', 400),
        ("POST", "/scale", b'{"workers": true}', 400),
        ("POST", "/scale", b'{"workers": 1e99}', 400),
        ("POST", "/scale", b'{"workers": 2, "force": true}', 400),
        ("POST", "/stop", b'{"force": "yes"}', 400),
        ("POST", "/reload", b"[]", 400),
        ("POST", "/reload", b"[" * 10000, 400),
        ("POST", "/reload", b"\xff", 400),
        ("POST", "/reload", b"x" * 20000, 413),
    ],
)
def test_bad_requests_are_refused_and_order_nothing(
    parent: Serving, method: str, path: str, body: bytes, status: int
) -> None:
    with Peer(parent.path) as peer:
        peer.request(path, f"content-length: {len(body)}", method=method, body=body)
        assert peer.answer().status == status
    assert parent.service.taken == []


def test_the_socket_is_its_owners_alone_from_its_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    seen = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            with suppress(FileNotFoundError):
                seen.add(stat.S_IMODE(os.lstat(path).st_mode))

    watching = threading.Thread(target=look)
    watching.start()
    before = os.umask(0)
    try:
        for _ in range(20):
            with serving(str(path)):
                pass
    finally:
        assert os.umask(before) == 0
        ended.set()
        watching.join()
    assert seen == {0o600}


def test_the_uid_of_a_peer_is_the_kernels_word() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert peer_uid(left.fileno()) == os.geteuid()
        left.send(b"still open")


def test_another_user_is_refused_whatever_the_files_mode(parent: Serving) -> None:
    parent.server._uids = {12345}
    status, (document,) = ask(parent, "POST", "/stop")
    assert status == 403
    assert not document["ok"]
    assert parent.service.taken == []


def test_a_socket_left_by_a_crash_is_replaced_and_one_that_answers_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "c.sock")
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(path)
        crashed.listen()
    with serving(path) as first:
        assert ask(first, "GET", "/status")[0] == 200
        with pytest.raises(StartupError, match="another server answers"), serving(path):
            pass
        assert ask(first, "GET", "/status")[0] == 200
    assert not os.path.exists(path)


def test_a_successor_takes_the_path_over_while_the_predecessor_still_answers(tmp_path: Path) -> None:
    path = str(tmp_path / "c.sock")
    with serving(path) as old:
        old.service.answer = {"pid": 1}
        with Peer(path) as kept, serving(path, replace=True) as new:
            new.service.answer = {"pid": 2}
            assert json.loads(kept.get("/status").body)["pid"] == 1
            assert ask(new, "GET", "/status")[1][0]["pid"] == 2
            old.close()
            assert ask(new, "GET", "/status")[1][0]["pid"] == 2
    assert os.listdir(tmp_path) == []


def test_the_end_tells_who_waits_for_an_order(parent: Serving) -> None:
    parent.service.slow.add("reload")
    with Peer(parent.path) as peer:
        peer.request("/reload", "content-length: 0", method="POST")
        peer.head()
        assert parent.service.begun.wait(10)
        parent.close()
        lines = [json.loads(line) for chunk in iter(peer.chunk, b"") for line in chunk.splitlines()]
    assert lines[-1]["event"] == "ended"
    assert not os.path.exists(parent.path)


def test_an_order_that_is_settled_at_the_end_is_still_answered(parent: Serving) -> None:
    parent.service.slow.add("stop")
    with Peer(parent.path) as peer:
        peer.request("/stop", "content-length: 0", method="POST")
        peer.head()
        parent.service.settle(Outcome(True, "Stopped"))
        parent.close()
        lines = [json.loads(line) for chunk in iter(peer.chunk, b"") for line in chunk.splitlines()]
    assert lines[-1] == {"event": "settled", "ok": True, "text": "Stopped", "report": None}


def test_the_end_does_not_wait_for_a_client_that_does_not_read(parent: Serving) -> None:
    parent.service.requests = [{"path": "/" + "x" * 1000}] * 20000
    with Peer(parent.path, receive_buffer=4096) as peer:
        peer.request("/inflight")
        peer.head()
        begun = time.monotonic()
        parent.close()
        assert time.monotonic() - begun < 5


@pytest.mark.slow
def test_clients_that_say_nothing_keep_nobody_out_for_long(parent: Serving) -> None:
    silent = [Peer(parent.path) for _ in range(CONNECTIONS_AT_MOST)]
    try:
        assert ask(parent, "GET", "/status")[0] == 200
    finally:
        for peer in silent:
            peer.close()


def test_it_begins_serves_and_ends_without_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), serving(str(tmp_path / "c.sock")) as parent:
        ask(parent, "GET", "/status")
        ask(parent, "POST", "/nothing")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("lastcall")] == []

"""Responses whose framing has nothing left, though the last message of the application is missing: nobody misses it.

The head of a HEAD response, and of a 204, 205 or 304, is all of it (RFC 9112 6.3); a declared length is complete with
its last byte. Whatever ends such a response cuts nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from lastcall.base.types import Message
from testing.draining import StoppableBench
from testing.memory import Bench, Call, Client, Stage, body, get, start

MakeBench = Callable[..., Bench]
MakeStoppable = Callable[..., StoppableBench]

LENGTH = (b"content-length", b"5")
G = 20.0

# method, what was sent, whether that is all
SENT: dict[str, tuple[str, list[Message], bool]] = {
    "HEAD": ("HEAD", [start(200), body(b"hello", more=True)], True),
    "HEAD with a length": ("HEAD", [start(200, LENGTH), body(b"he", more=True)], True),
    "204": ("GET", [start(204), body(b"", more=True)], True),
    "205": ("POST", [start(205), body(b"", more=True)], True),
    "304": ("GET", [start(304, LENGTH), body(b"", more=True)], True),
    "a length": ("GET", [start(200, LENGTH), body(b"hello", more=True)], True),
    "a length of nothing": ("GET", [start(200, (b"content-length", b"0")), body(b"", more=True)], True),
    "a part of a length": ("GET", [start(200, LENGTH), body(b"hell", more=True)], False),
    "chunks": ("GET", [start(200), body(b"hello", more=True)], False),
}


def begin(stage: Stage, client: Client, sent: str) -> Call:
    """A response that is sent so far."""
    method, messages, _ = SENT[sent]
    client.send(get("/", *(["Content-Length: 0"] if method == "POST" else []), method=method))
    stage.last.sends(*messages)
    return stage.last


@pytest.mark.parametrize("sent", SENT)
def test_a_client_that_leaves_behind_its_end_has_cut_nothing(bench: MakeBench, sent: str) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    call = begin(stage, client, sent)
    client.reset()
    one.advance(1)
    call.ends()
    assert [record.mark for record in one.records] == [None if SENT[sent][2] else "cut"]


@pytest.mark.parametrize("error", [None, LookupError("mine")])
@pytest.mark.parametrize("sent", SENT)
def test_an_application_that_ends_without_its_last_message(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, sent: str, error: Exception | None
) -> None:
    """The connection goes on where the response is whole, and there is nothing to say of it but the exception."""
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    method, _, whole = SENT[sent]
    begin(stage, client, sent).ends(error)
    assert client.answer(method).complete == whole
    assert client.gone != whole
    assert [record.mark for record in one.records] == [None if whole else "cut"]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == (0 if whole and error is None else 1)


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("ends", ["at the grace's end", "by itself", "by policy", "by a cancel"])
def test_a_stop_counts_no_cut_of_what_is_whole(stoppable: MakeStoppable, sent: str, ends: str) -> None:
    method, _, whole = SENT[sent]
    stage = Stage()
    one = stoppable(stage, nonzero_on_cut=True, close=("*",) if ends == "by policy" else ())
    client = one.connect()
    call = begin(stage, client, sent)
    one.order()
    if ends == "by itself":
        call.ends()
    elif ends == "by a cancel":
        one.force()
        one.force()
    elif ends == "at the grace's end":
        one.reach(G)
        call.ends()
    else:
        one.reach(1)
        call.ends()
    report = one.finish()
    assert client.answer(method).complete == whole
    assert [record.mark for record in one.records] == [None if whole else "cut"]
    cut = not whole and ends != "by policy"
    assert (len(report.cut), report.exit_code) == ((1, 6) if cut else (0, 0))
    assert report.broken_off == (1 if not whole and ends == "by itself" else 0)


def test_a_head_that_its_client_has_not_got_is_cut(stoppable: MakeStoppable) -> None:
    """The framing has nothing left, but not all of it is out."""
    stage = Stage()
    one = stoppable(stage)
    client = one.connect(capacity=10)
    begin(stage, client, "HEAD")
    one.order()
    one.reach(G)
    report = one.finish()
    assert [record.mark for record in one.records] == ["cut"]
    assert len(report.cut) == 1

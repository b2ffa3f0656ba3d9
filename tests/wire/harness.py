"""Runs a RequestParser over bytes that came in pieces, and says what it made of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypedDict

import pytest

from lastcall.base.errors import RemoteProtocolError
from lastcall.wire.http1 import Event, RequestParser


class Limits(TypedDict, total=False):
    limit_request_line: int
    limit_headers: int
    limit_header_bytes: int
    limit_body: int


@dataclass
class Message:
    """One request as the parser told it. ``body`` is what had come when the bytes ended."""

    method: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: list[tuple[bytes, bytes]]
    minor: int
    content_length: int
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    upgrade_websocket: bool
    has_body: bool
    body: bytes = b""
    complete: bool = False


@dataclass
class Outcome:
    """All that a stream of bytes meant: requests, then a refusal (``status`` 0: none) or bytes not yet consumed.

    ``ends``: behind which byte of the stream each complete message ends.
    """

    messages: list[Message] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    status: int = 0
    reason: str = ""
    rest: bytes = b""
    idle: bool = False


def message_of(parser: RequestParser) -> Message:
    """The head on ``parser``. Without a body the message is complete with it: no END follows."""
    return Message(
        method=parser.method,
        path=parser.path,
        raw_path=parser.raw_path,
        query_string=parser.query_string,
        headers=list(parser.headers),
        minor=parser.minor,
        content_length=parser.content_length,
        chunked=parser.chunked,
        keep_alive=parser.keep_alive,
        expect_continue=parser.expect_continue,
        upgrade_websocket=parser.upgrade_websocket,
        has_body=parser.has_body,
        complete=not parser.has_body,
    )


def events(parser: RequestParser) -> Iterator[tuple[Event, bytes]]:
    """What the bytes received so far give, up to NEED_DATA."""
    while True:
        event, payload = parser.next_event()
        if event is Event.NEED_DATA:
            return
        yield event, payload or b""


def drive(parser: RequestParser, parts: Iterable[bytes]) -> Outcome:
    """Everything that ``parts`` mean to ``parser``. After a refusal nothing more is shown to it but to prove that."""
    outcome = Outcome()
    received = len(parser.unconsumed)
    try:
        for part in parts:
            parser.receive_data(part)
            received += len(part)
            for event, payload in events(parser):
                if event is Event.HEAD:
                    outcome.messages.append(message_of(parser))
                elif event is Event.DATA:
                    assert payload, "a DATA event without data"
                    outcome.messages[-1].body += payload
                else:
                    assert event is Event.END
                    outcome.messages[-1].complete = True
                if event is not Event.DATA and outcome.messages[-1].complete:
                    outcome.ends.append(received - len(parser.unconsumed))
        outcome.rest = parser.unconsumed
        outcome.idle = parser.idle
    except RemoteProtocolError as error:
        outcome.status, outcome.reason = error.status, str(error)
        assert (parser.status, parser.reason) == (outcome.status, outcome.reason)
        prove_broken(parser, outcome)
    return outcome


def prove_broken(parser: RequestParser, outcome: Outcome) -> None:
    """Nothing that comes after a refusal is parsed, not even a flawless request: RFC 9112 11.2."""
    for more in (b"", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        parser.receive_data(more)
        with pytest.raises(RemoteProtocolError) as caught:
            parser.next_event()
        assert (caught.value.status, str(caught.value)) == (outcome.status, outcome.reason)
    assert not parser.idle


def parse(*parts: bytes, limits: Limits | None = None) -> Outcome:
    """What a fresh parser makes of ``parts``."""
    return drive(RequestParser(**(limits or {})), parts)


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``data`` cut at the given places, in any order; places outside of it are ignored."""
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def parse_every_way(data: bytes, limits: Limits | None = None) -> Outcome:
    """What ``data`` means, after proving that whole, in two halves at every place, and byte by byte it is the same."""
    whole = parse(data, limits=limits)
    assert parse(*bytewise(data), limits=limits) == whole
    for cut in range(1, len(data)) if len(data) < 300 else ():
        assert parse(data[:cut], data[cut:], limits=limits) == whole, f"cut at {cut}"
    return whole

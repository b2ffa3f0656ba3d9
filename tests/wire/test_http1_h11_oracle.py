"""h11 as an independent judge: a message boundary that the two of us see in different places is a smuggled request.

Where we are stricter than h11 there is nothing to compare. ``DIFFERENCES`` lists what we accept and it does not; each
is proved, and nothing else may differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import h11
import pytest
from hypothesis import event, example, given, settings

from tests.wire.harness import Message, Outcome, parse
from tests.wire.strategies import Wanted, incomplete, streams, wire


@dataclass
class Judged:
    """One request as h11 read it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    minor: int
    body: bytes = b""
    keep_alive: bool = False


@dataclass
class Verdict:
    """``ends``: behind which byte each complete request ends. ``refused``: h11's reason, or empty."""

    requests: list[Judged] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    refused: str = ""


def judge(data: bytes) -> Verdict:
    """What h11 makes of ``data``, a fresh connection for each request: whether to read on is for the server to say.

    Up to two empty lines before a request are taken away: h11 refuses them, RFC 9112 2.2 does not.
    """
    verdict = Verdict()
    at = 0
    while at < len(data):
        for _ in range(2):
            at += 2 * data.startswith(b"\r\n", at)
        if at == len(data):
            break
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data[at:])
        try:
            if not read_one(connection, verdict):
                break
        except h11.RemoteProtocolError as error:
            verdict.refused = str(error)
            break
        at = len(data) - len(connection.trailing_data[0])
        verdict.ends.append(at)
        verdict.requests[-1].keep_alive = keeps_alive(connection)
    return verdict


def read_one(connection: h11.Connection, verdict: Verdict) -> bool:
    """Read one whole request from ``connection``; False where its bytes end first."""
    while True:
        found = connection.next_event()
        if found is h11.NEED_DATA:
            return False
        if isinstance(found, h11.Request):
            minor = int(found.http_version[-1:])
            verdict.requests.append(Judged(found.method, found.target, list(found.headers), minor))
        elif isinstance(found, h11.Data):
            verdict.requests[-1].body += bytes(found.data)
        else:
            assert isinstance(found, h11.EndOfMessage)
            return True


def keeps_alive(connection: h11.Connection) -> bool:
    """Whether h11 would read another request after an answer."""
    connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    return connection.their_state is h11.DONE and connection.our_state is h11.DONE


def agree(ours: Message, theirs: Judged) -> None:
    """One request is the same to both of us."""
    assert (ours.method, ours.minor, ours.body) == (theirs.method.decode().upper(), theirs.minor, theirs.body)
    target = ours.raw_path + b"?" * (b"?" in theirs.target) + ours.query_string
    if theirs.target.startswith((b"/", b"*")):
        assert target == theirs.target
        assert normal(ours.headers) == normal(theirs.headers)
    else:
        # absolute-form: the authority wins over Host (RFC 9112 3.2.2)
        scheme, _, rest = theirs.target.partition(b"://")
        assert scheme.lower() in (b"http", b"https")
        (host,) = [value for name, value in ours.headers if name == b"host"]
        assert rest.startswith(host)
        assert target == (b"" if rest[len(host) :].startswith(b"/") else b"/") + rest[len(host) :]
        assert normal(ours.headers, without=b"host") == normal(theirs.headers, without=b"host")


def normal(headers: list[tuple[bytes, bytes]], without: bytes = b"") -> list[tuple[bytes, bytes]]:
    """h11 lower-cases the value of Transfer-Encoding."""
    return [
        (name, value.lower() if name == b"transfer-encoding" else value) for name, value in headers if name != without
    ]


def compare(data: bytes) -> tuple[Outcome, Verdict]:
    """Both verdicts on ``data``, after proving that every message that both of us read is the same, to the byte."""
    outcome, verdict = parse(data), judge(data)
    both = min(len(outcome.ends), len(verdict.ends))
    assert outcome.ends[:both] == verdict.ends[:both], "a message boundary in two places"
    for ours, theirs in zip(outcome.messages[:both], verdict.requests[:both], strict=True):
        agree(ours, theirs)
        # h11 keeps no 1.0 connection; test_http1_requests has our rules for those
        assert (ours.keep_alive and ours.minor == 1) == theirs.keep_alive
    # Who has not refused the next message must not still be waiting for the end of one that the other has read.
    assert outcome.status or len(outcome.ends) >= len(verdict.ends), "h11 sees an end where we do not"
    assert verdict.refused or len(verdict.ends) >= len(outcome.ends), "we see an end where h11 does not"
    if not outcome.status and not verdict.refused:
        # the last one, unfinished
        for ours, theirs in zip(outcome.messages[both:], verdict.requests[both:], strict=True):
            agree(ours, theirs)
    return outcome, verdict


# name -> (what we accept, what h11 says). RFC 9112 allows each of them, or tells us to ignore them.
DIFFERENCES = {
    "white space before a chunk extension (RFC 9112 7.1.1: BWS)": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 ;a\r\nx\r\n0\r\n\r\n",
        "illegal chunk header"),
    "more than 20 digits of chunk size, zeros first (RFC 9112 7.1: 1*HEXDIG)": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 20 + b"1\r\nx\r\n0\r\n\r\n",
        "illegal chunk header"),
    "framing fields in trailers, which are dropped unread (RFC 9110 6.5.1)": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
        "Only Transfer-Encoding: chunked is supported"),
    "the same Content-Length in other digits (RFC 9110 8.6: the same decimal value)": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 01\r\n\r\nx",
        "conflicting Content-Length"),
}  # fmt: skip
# What the differences look like in the bytes of one message that we have read and h11 has refused.
ODD_CHUNK_SIZE = re.compile(rb"\r\n(?:[0-9a-fA-F]+[ \t]+;|[0-9a-fA-F]{21})")


def excused(message: Message, data: bytes, verdict: Verdict) -> bool:
    """Whether h11 refused ``message``, whose bytes are ``data``, for one of the differences above."""
    head_was_read = len(verdict.requests) > len(verdict.ends)
    if "illegal chunk header" in verdict.refused:
        return head_was_read and message.chunked and ODD_CHUNK_SIZE.search(data) is not None
    if head_was_read:
        trailer_names = ("Transfer-Encoding", "Content-Length")
        return message.chunked and any(name in verdict.refused for name in trailer_names)
    return "conflicting Content-Length" in verdict.refused and data.lower().count(b"content-length") > 1


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_known_difference_is_one(name: str) -> None:
    data, refusal = DIFFERENCES[name]
    outcome, verdict = compare(data)
    assert (outcome.status, outcome.ends, outcome.messages[0].complete) == (0, [len(data)], True)
    assert refusal in verdict.refused
    assert excused(outcome.messages[0], data, verdict)


def test_empty_lines_before_a_request_are_a_known_difference_too() -> None:
    """RFC 9112 2.2; ``judge`` takes them away."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises(h11.RemoteProtocolError):
        connection.next_event()
    assert parse(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").messages[0].complete


def test_the_judge_finds_a_smuggled_request() -> None:
    """The oracle itself works: bytes that h11 and we are known to cut differently, were we not strict."""
    lax = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET"
    verdict = judge(lax)
    assert (verdict.ends, verdict.requests[0].body) == ([len(lax) - 3], b"")
    outcome = parse(lax.replace(b"Transfer-Encoding: chunked\r\n", b""))
    assert outcome.messages[0].body == b"0\r\n\r\n"
    with pytest.raises(AssertionError):
        agree(outcome.messages[0], verdict.requests[0])


@given(streams())
def test_what_was_meant_is_read_by_both(wanted: list[Wanted]) -> None:
    """(a) Valid requests are accepted by both, and are the same to both."""
    data = wire(wanted)
    outcome, verdict = compare(data)
    assert len(outcome.ends) == len(wanted)
    assert outcome.ends[-1] == len(data)
    if verdict.refused:
        refused = len(verdict.ends)
        start = outcome.ends[refused - 1] if refused else 0
        assert excused(outcome.messages[refused], data[start : outcome.ends[refused]], verdict), verdict.refused
    else:
        assert verdict.ends == outcome.ends


@settings(max_examples=1000)
@given(incomplete())
@example(
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.1\r\nHost: a\r\n\r\n"
)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\n\r\nx\r\n0\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\xff\r\nx\r\n0\r\na:\r\n\r\n")
def test_after_mutations_both_see_the_same_boundaries(data: bytes) -> None:
    """(b) Where both accept they agree to the byte; h11 accepts what we accept, but for the differences above."""
    outcome, verdict = compare(data)
    event(f"we {outcome.status or 'accept'}, h11 {'refuses' if verdict.refused else 'accepts'}")
    refused = len(verdict.ends)
    if len(outcome.ends) > refused:
        start = outcome.ends[refused - 1] if refused else 0
        assert excused(outcome.messages[refused], data[start : outcome.ends[refused]], verdict), verdict.refused

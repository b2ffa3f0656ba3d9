"""The table of header lines seen lately: invisible but for speed, whatever was parsed before in this process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.harness import Limits, Message, parse
from tests.wire.strategies import Wanted, streams, wire

OFTEN = 4  # more than a line must be seen to be kept


def seen(*lines: bytes, host: bytes = b"Host: a") -> Message:
    """A request with these header lines behind Host."""
    outcome = parse(b"GET / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in (host, *lines)) + b"\r\n")
    assert outcome.status == 0, outcome.reason
    return outcome.messages[0]


def seen_often(line: bytes) -> list[tuple[bytes, bytes]]:
    """The pairs that ``line`` gave in requests one after the other."""
    return [seen(line).headers[1] for _ in range(OFTEN)]


@pytest.mark.parametrize("line", [b"Accept: text/recent", b"user-AGENT:\t recent \t", b"accept-encoding:"])
def test_a_line_that_is_seen_again_and_again_is_one_pair(line: bytes) -> None:
    pairs = seen_often(line)
    name, _, value = line.partition(b":")
    assert pairs == [(name.lower(), value.strip())] * OFTEN
    assert pairs[-1] is pairs[-2]
    # another spelling of the same is another line
    assert seen(line.swapcase() if not value.strip() else line + b" ").headers[1] == pairs[0]


@pytest.mark.parametrize("name", [b"Cookie", b"Authorization", b"Proxy-Authorization", b"X-Api-Key", b"X-CSRF-Token",
                                  b"Idempotency-Key", b"X-Not-A-Common-Name"])  # fmt: skip
def test_what_may_be_a_secret_is_never_kept(name: bytes) -> None:
    pairs = seen_often(name + b": s3cret")
    assert pairs == [(name.lower(), b"s3cret")] * OFTEN
    assert len({id(value) for _, value in pairs}) == OFTEN


def test_a_long_line_is_not_kept() -> None:
    kept, long = b"Accept: " + b"k" * 184, b"Accept: " + b"l" * 185
    assert len({id(pair) for pair in seen_often(kept)[1:]}) < OFTEN - 1
    assert len({id(pair) for pair in seen_often(long)}) == OFTEN


def test_thousands_of_lines_that_share_its_slots_are_all_read_right() -> None:
    lines = [b"Accept: %x" % (i * 2654435761 % 2**32) for i in range(3000)]
    for _ in range(3):
        for line in lines:
            pair = (b"accept", line[8:])
            assert seen(line, line).headers[1:] == [pair, pair]


def test_lines_that_differ_in_one_byte_are_told_apart() -> None:
    line = b"Accept: 0123456789abcdefghijklmnopqrstuvwxyz"
    seen_often(line)
    for i in range(8, len(line)):
        other = line[:i] + b"~" + line[i + 1 :]
        assert seen(line, other, line).headers[1:] == [(b"accept", text[8:]) for text in (line, other, line)]
        for c in (b"\0", b"\n", b"\r", b"\x7f"):
            refused = parse(b"GET / HTTP/1.1\r\nHost: a\r\n" + line[:i] + c + line[i + 1 :] + b"\r\n\r\n")
            assert refused.status == 400


def test_a_known_host_is_counted_all_the_same() -> None:
    """RFC 9112 3.2: the line is recalled without its checks, but not without its consequences."""
    for _ in range(OFTEN):
        assert seen(host=b"Host: recent.example").headers == [(b"host", b"recent.example")]
    for second in (b"Host: recent.example", b"host: b", b"HOST: recent.example"):
        for pair in ((b"Host: recent.example", second), (second, b"Host: recent.example")):
            outcome = parse(b"GET / HTTP/1.1\r\n" + b"\r\n".join(pair) + b"\r\n\r\n")
            assert (outcome.status, outcome.reason) == (400, "more than one Host")


def test_an_absolute_target_does_not_change_what_is_kept() -> None:
    for _ in range(OFTEN):
        outcome = parse(b"GET http://other/ HTTP/1.1\r\nHost: recent.example\r\n\r\n")
        assert outcome.messages[0].headers == [(b"host", b"other")]
        assert seen(host=b"Host: recent.example").headers == [(b"host", b"recent.example")]


def test_framing_fields_are_never_taken_as_seen() -> None:
    for _ in range(OFTEN):
        for fields, body in (
            (b"Content-Length: 2\r\n", b"ok"),
            (b"Transfer-Encoding: chunked\r\n", b"2\r\nok\r\n0\r\n\r\n"),
        ):
            (message,) = parse(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + body).messages
            assert (message.body, message.complete) == (b"ok", True)
        assert not seen(b"Connection: close").keep_alive
        assert seen(b"Upgrade: websocket").upgrade_websocket
        assert parse(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n").status == 417


def test_known_lines_count_for_the_limits() -> None:
    line = b"Accept: recent/limits\r\n"
    seen_often(line.strip())
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + line * 3 + b"\r\n"
    for limits, status in (
        (Limits(limit_headers=4), 0),
        (Limits(limit_headers=3), 431),
        (Limits(limit_header_bytes=9 + 3 * len(line)), 0),
        (Limits(limit_header_bytes=8 + 3 * len(line)), 431),
    ):
        assert parse(data, limits=limits).status == status


def test_a_trailer_is_not_a_header_seen_lately() -> None:
    """Trailer fields are checked and dropped, known or not."""
    seen_often(b"Accept: recent/trailer")
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = head + b"0\r\nAccept: recent/trailer\r\nHost: a\r\n\r\n"
    (message,) = parse(data).messages
    assert (message.headers[1:], message.complete) == ([(b"transfer-encoding", b"chunked")], True)


@given(streams(), st.integers(1, OFTEN))
def test_a_stream_means_the_same_however_often_it_was_seen(wanted: list[Wanted], times: int) -> None:
    data = wire(wanted)
    first = parse(data)
    for _ in range(times):
        assert parse(data) == first

"""What must hold for every stream of bytes, valid or not, however it is split."""

from __future__ import annotations

import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lastcall.wire.http1 import Event, RequestParser
from tests.wire.harness import Limits, Outcome, bytewise, drive, parse, pieces
from tests.wire.strategies import MORSELS, Wanted, cuts, incomplete, streams, wire


def check(outcome: Outcome, wanted: list[Wanted]) -> None:
    """``outcome`` is what ``wanted`` was meant to be."""
    assert (outcome.status, outcome.reason, outcome.rest, outcome.idle) == (0, "", b"", True)
    assert len(outcome.messages) == len(wanted)
    for message, one in zip(outcome.messages, wanted, strict=True):
        assert message.complete
        assert message.method == one.method.upper()
        assert (message.minor, message.keep_alive, message.body) == (one.minor, one.keep_alive, one.body)
        scheme, separator, rest = one.target.partition(b"://")
        if one.target.startswith(b"/") or not separator:
            origin, authority = one.target, None
        else:
            end = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
            authority, origin = rest[:end], rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]
        raw_path, _, query = origin.partition(b"?")
        assert (message.raw_path, message.query_string) == (raw_path, query)
        if authority is None:
            assert message.headers == one.headers
        else:
            assert [pair for pair in message.headers if pair[0] != b"host"] == [
                pair for pair in one.headers if pair[0] != b"host"
            ]
            assert [value for name, value in message.headers if name == b"host"] == [authority]
            assert scheme.lower() in (b"http", b"https")


@given(streams(), cuts)
def test_any_split_of_a_valid_stream_parses_alike(wanted: list[Wanted], places: list[int]) -> None:
    data = wire(wanted)
    whole = parse(data)
    check(whole, wanted)
    assert parse(*pieces(data, places)) == whole
    assert parse(*bytewise(data)) == whole


@given(streams(), st.data())
def test_a_stream_that_ends_early_is_neither_refused_nor_complete(wanted: list[Wanted], data: st.DataObject) -> None:
    last = wanted[-1].wire
    before = len(wire(wanted)) - len(last)
    end = before + data.draw(st.integers(0, len(last) - 1))
    outcome = parse(wire(wanted)[:end])
    assert outcome.status == 0
    assert sum(message.complete for message in outcome.messages) == len(wanted) - 1
    assert outcome.messages[: len(wanted) - 1] == parse(wire(wanted)).messages[:-1]


@given(streams(most=2), st.sampled_from([b"\x00", b"BAD\r\n", b"\n", b" GET", b"G T / HTTP/1.1\r\n"]), streams(most=1))
def test_nothing_is_parsed_after_a_refusal(wanted: list[Wanted], bad: bytes, after: list[Wanted]) -> None:
    """``parse`` proves itself that the parser stays broken; here the bytes after the bad ones are there at once."""
    outcome = parse(wire(wanted) + bad + wire(after))
    assert outcome.status == 400
    assert len(outcome.messages) == len(wanted)


limits = st.fixed_dictionaries(
    {},
    optional={
        "limit_request_line": st.integers(0, 60),
        "limit_headers": st.integers(0, 6),
        "limit_header_bytes": st.integers(0, 120),
        "limit_body": st.integers(-1, 40),
    },
)


@settings(max_examples=400)
@given(incomplete(), cuts, limits)
@example(b"GET / HTTP/1.1\r HTTP/3.0\r\n", [], Limits())
@example(b"GET /aaaaaaaaaaaaaaa HTTP/1.1\r\n\r\n", [], Limits(limit_request_line=29))
def test_the_verdict_on_anything_does_not_depend_on_the_split(data: bytes, places: list[int], bounds: Limits) -> None:
    whole = parse(data, limits=bounds)
    assert parse(*pieces(data, places), limits=bounds) == whole
    assert parse(*bytewise(data), limits=bounds) == whole


@settings(max_examples=400)
@given(st.lists(st.one_of(st.binary(max_size=6), st.sampled_from(MORSELS)), max_size=12).map(b"".join), cuts, limits)
def test_arbitrary_bytes_never_crash(data: bytes, places: list[int], bounds: Limits) -> None:
    whole = parse(data, limits=bounds)
    assert parse(*pieces(data, places), limits=bounds) == whole
    assert whole.status in (0, 400, 413, 414, 417, 431, 501, 505)
    assert bool(whole.status) == bool(whole.reason)


@given(streams(), cuts)
def test_one_parser_serves_a_connection_for_life(wanted: list[Wanted], places: list[int]) -> None:
    """The second time round it finds the same: no state is carried from one request to a later one."""
    parser = RequestParser()
    data = wire(wanted)
    first = drive(parser, pieces(data, places))
    assert drive(parser, pieces(data, places)) == first


def seconds_to_feed(data: bytes, size: int) -> float:
    """CPU seconds to feed ``data`` in pieces of ``size`` bytes to a parser that must want more at the end."""
    parser = RequestParser(limit_request_line=1 << 30, limit_headers=1 << 20, limit_header_bytes=1 << 30)
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    start = time.process_time()
    for part in parts:
        parser.receive_data(part)
        while parser.next_event()[0] is not Event.NEED_DATA:
            pass
    return time.process_time() - start


def test_a_line_that_comes_byte_by_byte_costs_linear_time() -> None:
    """1 MiB in one line. Looking again at what has been looked at would take a minute (5 * 10**11 bytes)."""
    size = 1 << 20
    head = b"GET / HTTP/1.1\r\nHost: a\r\n"
    for data in (b"GET /" + b"a" * size, head + b"A: " + b"b" * size, head + b"A" * size):
        assert seconds_to_feed(data, 1) < 5


def test_a_header_of_60_kib_that_comes_byte_by_byte_takes_less_than_a_second() -> None:
    assert seconds_to_feed(b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 60 * 1024 + b"\r\n\r\n", 1) < 1


def test_many_chunks_at_once_cost_linear_time() -> None:
    """100 000 chunks in one buffer: reading one must not cost a look at, or a copy of, all that follow."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = head + b"1\r\nx\r\n" * 100_000
    assert seconds_to_feed(data, len(data)) < 2

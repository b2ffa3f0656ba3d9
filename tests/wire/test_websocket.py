"""Frames of WebSockets, as they come: whole, byte by byte, split anywhere; and those that must fail the connection."""

from __future__ import annotations

import os
import struct
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from lastcall.wire.websocket import FrameParser, encode_close, encode_frame

LIMIT = 1 << 20


def masked(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, key: bytes = b"\x01\x82\x43\xf4") -> bytes:
    """A client's frame, made without our code."""
    first = opcode | (0x80 if fin else 0) | rsv
    n = len(payload)
    length = (
        bytes([0x80 | n])
        if n < 126
        else b"\xfe" + struct.pack("!H", n)
        if n < 65536
        else b"\xff" + struct.pack("!Q", n)
    )
    return bytes([first]) + length + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def fed(data: bytes, *, step: int = 0, limit: int = LIMIT) -> list[tuple[object, ...]]:
    parser = FrameParser(limit)
    if not step:
        return parser.feed(data)
    found = []
    for at in range(0, len(data), step):
        found += parser.feed(data[at : at + step])
        if found and found[-1][0] == "failed":
            break
    return found


MESSAGES = st.one_of(
    st.tuples(st.just("text"), st.text(max_size=300)),
    st.tuples(st.just("binary"), st.binary(max_size=300)),
    st.tuples(st.just("ping"), st.binary(max_size=125)),
    st.tuples(st.just("pong"), st.binary(max_size=125)),
)


@given(st.lists(MESSAGES, max_size=6), st.integers(1, 400), st.randoms(use_true_random=False))
def test_what_wsproto_sends_is_what_comes_however_it_is_split(
    messages: list[tuple[str, Any]], size: int, random: Random
) -> None:
    """wsproto's client is the oracle: it masks with keys of its own, and cuts messages where it is told to."""
    client = FrameProtocol(client=True, extensions=[])
    data = b""
    expected: list[tuple[object, ...]] = []
    for kind, payload in messages:
        if kind == "ping":
            data += client.ping(payload)
            expected.append(("ping", payload))
        elif kind == "pong":
            data += client.pong(payload)
            expected.append(("pong", payload))
        else:
            cut = random.randrange(len(payload) + 1)
            for part, fin in ((payload[:cut], False), (payload[cut:], True)):
                data += client.send_data(part, fin=fin)
                if not fin and random.random() < 0.5:
                    data += client.ping(b"between")
                    expected.append(("ping", b"between"))
            expected.append(("message", payload))
    data += client.close(1000, "done")
    expected.append(("close", 1000, "done"))
    assert fed(data) == expected
    assert fed(data, step=size) == expected


@given(st.binary(max_size=70_000) | st.integers(65_530, 65_545).map(os.urandom), st.sampled_from([1, 2]))
def test_what_we_send_is_what_wsproto_reads(payload: bytes, opcode: int) -> None:
    if opcode == 1:
        payload = payload.decode("latin-1").encode()
    client = FrameProtocol(client=True, extensions=[])
    client.receive_bytes(
        encode_frame(opcode, payload) + encode_frame(9, b"?") + encode_frame(8, encode_close(1012, "é"))
    )
    *parts, ping, close = list(client.received_frames())
    sent = b"".join(str(part.payload).encode() if opcode == 1 else bytes(cast("bytes", part.payload)) for part in parts)
    assert sent == payload
    assert (ping.opcode, ping.payload) == (Opcode.PING, b"?")
    assert close.payload == (1012, "é")


@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (masked(1, b"", rsv=0x40), 1002),
        (masked(2, b"", rsv=0x20), 1002),
        (masked(9, b"", rsv=0x10), 1002),
        (masked(3, b""), 1002),
        (masked(0xB, b""), 1002),
        (masked(0, b"of nothing"), 1002),
        (masked(1, b"a", fin=False) + masked(2, b"b"), 1002),
        (masked(1, b"a", fin=False) + masked(0, b"b", rsv=0x40), 1002),
        (masked(9, b"", fin=False), 1002),
        (masked(9, b"x" * 126), 1002),
        (masked(8, b"\x03"), 1002),
        *[(masked(8, struct.pack("!H", code)), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)],
        (masked(8, b"\x03\xe8\xff"), 1007),
        (masked(1, b"\xff"), 1007),
        (masked(1, "é".encode()[:1]), 1007),
        (masked(1, b"\xed\xa0\x80"), 1007),  # a surrogate
        (masked(1, b"\xf4\x90\x80\x80"), 1007),  # beyond U+10FFFF
        (masked(1, b"\xc0\x80", fin=False) + masked(0, b""), 1007),  # longer than it need be
        (masked(1, b"\xe2\x82", fin=False) + masked(0, b""), 1007),
        (b"\x82\xfe\x00\x05" + bytes(9), 1002),  # a length that fits into fewer bytes
        (b"\x82\xff" + struct.pack("!Q", 65535) + bytes(4), 1002),
        (b"\x82\xff" + struct.pack("!Q", 1 << 63) + bytes(4), 1002),
        (b"\x82\xff" + struct.pack("!Q", LIMIT + 1) + bytes(4), 1009),  # before any of it has come
        (masked(2, bytes(LIMIT - 1), fin=False) + masked(0, b"ab"), 1009),
    ],
)
def test_a_peer_that_breaks_the_protocol_fails(data: bytes, code: int, step: int) -> None:
    if step and len(data) > 10_000:
        step = 4096
    *before, last = fed(data + masked(1, b"behind"), step=step)
    assert (last[0], last[1]) == ("failed", code)
    assert before == []


@given(st.binary(max_size=40), st.integers(0, 40))
def test_bad_text_is_found_at_its_first_bad_byte(data: bytes, cut: int) -> None:
    """Python's incremental decoder is the oracle for a text whose end has not come."""
    import codecs  # noqa: PLC0415 - the oracle

    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for part in (data[:cut], data[cut:]):
            decoder.decode(part)
        valid = True
    except UnicodeDecodeError:
        valid = False
    found = fed(masked(1, data[:cut], fin=False) + masked(0, data[cut:], fin=False))
    assert found == ([] if valid else [("failed", 1007, "not UTF-8")])


def test_behind_a_failure_nothing_is_read() -> None:
    parser = FrameParser(LIMIT)
    assert parser.feed(b"\x81\x00")[0][0] == "failed"
    assert parser.feed(masked(1, b"hello"))[0][0] == "failed"


def test_a_text_of_any_size_and_phase_is_unmasked() -> None:
    for size in [*range(40), 126, 65535, 65536, 65537, 200_000]:
        payload = os.urandom(size).hex().encode()[:size]
        for key in (b"\0\0\0\0", b"\x01\x02\x03\x04", b"\xff\x00\xaa\x55"):
            assert fed(masked(1, payload, key=key)) == [("message", payload.decode())]
            assert fed(masked(2, payload, key=key), step=max(1, size // 3)) == [("message", payload)]


def test_after_our_close_messages_are_dropped_and_the_peers_close_is_found() -> None:
    parser = FrameParser(100)
    assert parser.feed(masked(2, b"half", fin=False)) == []
    parser.discard()
    rest = masked(0, b"the rest") + masked(2, bytes(5000)) + masked(9, b"?") + masked(8, b"")
    assert parser.feed(rest) == [("ping", b"?"), ("close", 1005, "")]


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1100, 2999, 5000])
def test_no_other_code_is_ever_sent(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        encode_close(code)


def test_a_reason_is_cut_at_a_character() -> None:
    payload = encode_close(1000, "é" * 100)
    assert len(payload) <= 125
    assert payload[2:].decode() == "é" * 61


def test_an_idle_parser_is_small() -> None:
    assert FrameParser(LIMIT).__sizeof__() < 400

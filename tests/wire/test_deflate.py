"""permessage-deflate: what is agreed on, and what comes out on both sides. wsproto and zlib are the oracles."""

from __future__ import annotations

import zlib
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

from lastcall.wire.deflate import Agreement, Deflater, Inflater, agree
from lastcall.wire.websocket import FrameParser, encode_frame

PMD = b"permessage-deflate"


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (PMD, b"permessage-deflate; server_max_window_bits=12"),
        (PMD + b"; client_max_window_bits", b"server_max_window_bits=12; client_max_window_bits=12"),
        (PMD + b'; server_max_window_bits="10"', b"server_max_window_bits=10"),
        (PMD + b";client_max_window_bits=9", b"client_max_window_bits=9"),
        (PMD + b"; client_max_window_bits=8", b"permessage-deflate; server_max_window_bits=12"),
        (PMD + b"; server_no_context_takeover; client_no_context_takeover", b"server_no_context_takeover; client_no"),
        (b"x-other; a=1, " + PMD + b"; server_max_window_bits=8, " + PMD, b"server_max_window_bits=12"),
    ],
)
def test_what_is_agreed_on(offer: bytes, answer: bytes) -> None:
    found = agree([offer])
    assert found is not None
    assert answer in found.header
    assert b"=8" not in found.header


@pytest.mark.parametrize(
    "offer",
    [
        b"",
        b" , ",
        b"x-webkit-deflate-frame",
        PMD + b"; server_max_window_bits=8",  # zlib cannot
        PMD + b"; server_max_window_bits",
        PMD + b"; server_max_window_bits=010",
        PMD + b"; server_max_window_bits=16",
        PMD + b"; server_no_context_takeover=1",
        PMD + b"; server_no_context_takeover; server_no_context_takeover",
        PMD + b"; unknown",
    ],
)
def test_what_is_declined(offer: bytes) -> None:
    assert agree([offer]) is None


@pytest.mark.parametrize("offer", [PMD + b"; =1", PMD + b' ; a="', b"a b", b";", PMD + b"; a=b c"])
def test_what_is_no_list_of_extensions(offer: bytes) -> None:
    with pytest.raises(ValueError, match="extension"):
        agree([offer])


AGREEMENTS = st.builds(
    Agreement,
    server_bits=st.integers(9, 15),
    client_bits=st.integers(9, 15),
    server_no_takeover=st.booleans(),
    client_no_takeover=st.booleans(),
    told_client_bits=st.just(True),
)


@given(
    AGREEMENTS, st.lists(st.text(max_size=200) | st.binary(max_size=2000), min_size=1, max_size=5), st.integers(1, 99)
)
def test_wsproto_and_we_understand_each_other(agreement: Agreement, messages: list[str | bytes], step: int) -> None:
    extension = PerMessageDeflate(client_no_context_takeover=False, server_no_context_takeover=False)
    extension.finalize(agreement.header.decode())
    client = FrameProtocol(client=True, extensions=[extension])
    sent = b"".join(client.send_data(message) for message in messages)
    parser = FrameParser(1 << 20, Inflater(agreement))
    found = [event for at in range(0, len(sent), step) for event in parser.feed(sent[at : at + step])]
    assert found == [("message", message) for message in messages]
    deflater = Deflater(agreement)
    for message in messages:
        data = message if isinstance(message, bytes) else message.encode()
        client.receive_bytes(encode_frame(2, deflater.deflate(data), compressed=True))
    received = b"".join(bytes(cast("bytes", frame.payload)) for frame in client.received_frames())
    assert received == b"".join(one if isinstance(one, bytes) else one.encode() for one in messages)


def frame(data: bytes) -> bytes:
    n = len(data)
    return b"\xc2" + (bytes([0x80 | n]) if n < 126 else b"\xfe" + n.to_bytes(2, "big")) + bytes(4) + data


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_what_would_inflate_beyond_the_limit_is_not_made() -> None:
    assert FrameParser(100_000, Inflater(Agreement())).feed(frame(deflated(bytes(100_000)))) == [
        ("message", bytes(100_000))
    ]
    assert FrameParser(99_999, Inflater(Agreement())).feed(frame(deflated(bytes(100_000))))[0][1] == 1009


def test_what_is_not_deflated_fails() -> None:
    assert FrameParser(1000, Inflater(Agreement())).feed(frame(b"\xff\xff\xff\xff"))[0][:2] == ("failed", 1007)


def test_a_final_block_may_be_followed_by_an_empty_one() -> None:
    """RFC 7692 7.2.3.5, whose example this is."""
    parser = FrameParser(1000, Inflater(Agreement()))
    message = frame(bytes.fromhex("f348cdc9c90700") + b"\0")
    assert parser.feed(message) == [("message", b"Hello")]
    assert parser.feed(frame(deflated(b"next"))) == [("message", b"next")]


def test_many_final_blocks_fail() -> None:
    stream = zlib.compressobj(wbits=-15)
    final = stream.compress(b"") + stream.flush()
    assert FrameParser(1000, Inflater(Agreement())).feed(frame(final * 60))[0][:2] == ("failed", 1007)

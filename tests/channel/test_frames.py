"""Frames: the same whatever the pieces are that they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.channel.frames import DESCRIPTORS_AT_MOST, LARGEST, Frames, frame
from lastcall.channel.messages import ChannelError

contents = st.lists(st.tuples(st.binary(max_size=300), st.integers(0, DESCRIPTORS_AT_MOST)), max_size=8)


@given(contents, st.data())
def test_frames_come_out_as_they_went_in_whatever_the_pieces(
    items: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    wire = b"".join(frame(content, count) for content, count in items)
    frames, found, at = Frames(), [], 0
    while at < len(wire):
        size = data.draw(st.integers(1, len(wire) - at))
        found += list(frames.feed(wire[at : at + size]))
        at += size
    assert found == items
    assert not frames.partial


def test_a_frame_that_is_not_complete_is_kept() -> None:
    frames = Frames()
    assert list(frames.feed(frame(b"abc", 2)[:-1])) == []
    assert frames.partial
    assert list(frames.feed(b"c")) == [(b"abc", 2)]


@pytest.mark.parametrize(("length", "descriptors"), [(LARGEST + 1, 0), (1, DESCRIPTORS_AT_MOST + 1)])
def test_what_is_too_large_is_refused_before_it_is_read(length: int, descriptors: int) -> None:
    with pytest.raises(ChannelError):
        list(Frames().feed(length.to_bytes(4, "big") + bytes([descriptors])))


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(ChannelError):
        frame(b"", DESCRIPTORS_AT_MOST + 1)
    with pytest.raises(ChannelError):
        frame(bytes(LARGEST + 1))

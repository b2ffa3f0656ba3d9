"""Frames on a stream socket: four bytes of length, one of how many descriptors come with it, then JSON. Sans-IO."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from lastcall.channel.messages import ChannelError

LARGEST = 16 * 1024 * 1024
"""Bytes of one frame; more is no frame of ours."""

DESCRIPTORS_AT_MOST = 250
"""With one frame; Linux takes 253 in one message (SCM_MAX_FD)."""

_HEAD = struct.Struct("!IB")
HEAD_SIZE = _HEAD.size


def frame(data: bytes, descriptors: int = 0) -> bytes:
    """``data`` with its head. Raises ChannelError where it is too large, or goes with too many descriptors."""
    if len(data) > LARGEST or descriptors > DESCRIPTORS_AT_MOST:
        raise ChannelError(f"a frame of {len(data)} bytes with {descriptors} descriptors is too large")
    return _HEAD.pack(len(data), descriptors) + data


def head_of(data: bytes | bytearray) -> tuple[int, int]:
    """The length and the number of descriptors that a frame's first ``HEAD_SIZE`` bytes announce.

    Raises ChannelError for more than there can be.
    """
    length: int
    descriptors: int
    length, descriptors = _HEAD.unpack_from(data)
    if length > LARGEST or descriptors > DESCRIPTORS_AT_MOST:
        raise ChannelError(f"a frame of {length} bytes with {descriptors} descriptors is too large")
    return length, descriptors


class Frames:
    """Bytes in, frames out: each with the number of descriptors that belong to it."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Take bytes; yield every frame that is complete by now. Raises ChannelError for a length that is too large."""
        self._data += data
        while len(self._data) >= _HEAD.size:
            length, descriptors = head_of(self._data)
            end = _HEAD.size + length
            if len(self._data) < end:
                return
            found = bytes(self._data[_HEAD.size : end])
            del self._data[:end]
            yield found, descriptors

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._data)

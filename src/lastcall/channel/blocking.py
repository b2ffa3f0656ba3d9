"""One message sent or received without an event loop: before it runs, and when it has ended."""

from __future__ import annotations

import array
import os
import socket
from contextlib import suppress

from lastcall.channel.frames import DESCRIPTORS_AT_MOST, HEAD_SIZE, frame, head_of
from lastcall.channel.messages import ChannelError, Message, decode, encode

_INT = array.array("i").itemsize


def receive_now(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Wait for one message, and take nothing that comes behind it; None: the other side is gone.

    The descriptors are the caller's to close (close-on-exec is set). Raises ChannelError for what is no message.
    """
    found: list[int] = []
    try:
        head = _read(sock, HEAD_SIZE, found)
        if len(head) < HEAD_SIZE:
            return None
        length, count = head_of(head)
        content = _read(sock, length, found)
        if len(content) < length:
            return None
        message = decode(content)
        if count != len(found):
            raise ChannelError(f"{count} descriptors were announced, and {len(found)} came")
    except BaseException:
        for fd in found:
            os.close(fd)
        raise
    return message, found


def send_now(sock: socket.socket, message: Message, timeout: float = 1.0) -> bool:
    """Send one message, in ``timeout`` seconds at most; whether that was possible. Leaves the socket non-blocking."""
    try:
        sock.settimeout(timeout)
        sock.sendall(frame(encode(message)), getattr(socket, "MSG_NOSIGNAL", 0))
    except OSError:
        return False
    finally:
        with suppress(OSError):
            sock.setblocking(False)
    return True


def hung_up(sock: socket.socket) -> bool:
    """Whether the other side is gone, and all that it had sent was read. Leaves the socket non-blocking."""
    try:
        sock.setblocking(False)
        return sock.recv(1, socket.MSG_PEEK) == b""
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True


def _read(sock: socket.socket, size: int, descriptors: list[int]) -> bytes:
    """``size`` bytes, or fewer where the other side is gone; what comes beside them is added to ``descriptors``."""
    data = b""
    sock.setblocking(True)
    while len(data) < size:
        space = socket.CMSG_SPACE(DESCRIPTORS_AT_MOST * _INT)
        try:
            piece, ancillary, flags, _ = sock.recvmsg(size - len(data), space, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        except ConnectionError:
            break
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % _INT])
                descriptors.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            raise ChannelError("descriptors are missing: too few are free in this process")
        if not piece:
            break
        data += piece
    return data

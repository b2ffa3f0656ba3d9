"""One end of the channel in an event loop: messages and descriptors, in both directions, without ever blocking."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from lastcall.channel.frames import DESCRIPTORS_AT_MOST, Frames, frame
from lastcall.channel.messages import ChannelError, Message, decode, encode

_READ = 65536
_INT = array.array("i").itemsize

_FULL = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
"""The kernel has no room: of descriptors that are on their way it allows a user as many as one process may have."""

_FULL_SECONDS = 0.05
"""Until it is tried again."""


class Endpoint:
    """Sends and receives :class:`Message` over one end of a ``socket.socketpair()`` (a stream).

    ``on_message(message, descriptors)`` is called in the loop, in order; the descriptors are the receiver's to close
    (close-on-exec is set). ``on_lost(error)`` is called once, when the other side is gone (None) or has sent what is
    no message. ``send()`` never waits: what the socket does not take is kept and written later. Descriptors are
    duplicated when they are given, so that the caller may close its own at once.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message, list[int]], None],
        on_lost: Callable[[ChannelError | None], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._received: deque[int] = deque()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._writing = False
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop.add_reader(sock, self._readable)

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closed

    @property
    def unsent(self) -> int:
        """How many frames wait to be written."""
        return len(self._unsent)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send, or keep what cannot be sent now. After the loss of the other side this does nothing.

        Raises OSError, and sends nothing, where no descriptors are free.
        """
        if self._closed:
            return
        data = frame(encode(message), len(descriptors))
        copies: list[int] = []
        try:
            for fd in descriptors:
                copies.append(os.dup(fd))
        except OSError:
            for fd in copies:
                os.close(fd)
            raise
        self._unsent.append((data, copies))
        if not self._writing:
            self._write()

    def read_rest(self) -> None:
        """Take what has come and was not read yet: for the last words of one that has ended."""
        while not self._closed and self._readable():
            pass

    def close(self) -> None:
        """Close; what is unsent is lost. ``on_lost`` is not called."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        if self._writing:
            self._loop.remove_writer(self._sock)
        if self._again is not None:
            self._again.cancel()
        self._sock.close()
        self._close_descriptors()

    def finish(self, timeout: float) -> None:
        """Send what is unsent, waiting at most ``timeout`` seconds for the other side, then close."""
        end = time.monotonic() + timeout
        while self._unsent and not self._closed and (left := end - time.monotonic()) > 0:
            writable = select.poll()  # select() refuses descriptors from 1024 on
            writable.register(self._sock, select.POLLOUT)
            writable.poll(left * 1000.0)
            self._write()
        self.close()

    def let_go(self) -> None:
        """In a forked child: close our copies, and touch no loop."""
        if not self._closed:
            self._closed = True
            self._sock.close()
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        for fd in (*self._received, *(fd for _, fds in self._unsent for fd in fds)):
            with suppress(OSError):
                os.close(fd)
        self._received.clear()
        self._unsent.clear()

    def _lose(self, error: ChannelError | None) -> None:
        if not self._closed:
            self.close()
            self._on_lost(error)

    def _readable(self) -> bool:
        """Read once; whether there may be more."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                _READ, socket.CMSG_SPACE(DESCRIPTORS_AT_MOST * _INT), getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            )
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._lose(None)
            return False
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(content[: len(content) - len(content) % _INT])
                self._received.extend(found)
        if flags & socket.MSG_CTRUNC:
            self._lose(ChannelError("descriptors are missing: too few are free in this process"))
            return False
        if not data:
            self._lose(None)
            return False
        try:
            for content, count in self._frames.feed(data):
                message = decode(content)
                if count > len(self._received):
                    raise ChannelError(f"{count} descriptors were announced, and {len(self._received)} came")
                try:
                    self._on_message(message, [self._received.popleft() for _ in range(count)])
                except Exception as exc:  # those behind it count all the same
                    said = f"lastcall: internal error at {type(message).__name__}; please report this"
                    self._loop.call_exception_handler({"message": said, "exception": exc})
                if self._closed:
                    return False
        except ChannelError as exc:
            self._lose(exc)
        return not self._closed

    def _write(self) -> None:
        while self._unsent and not self._closed:
            data, descriptors = self._unsent[0]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            try:
                sent = self._sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as exc:
                if exc.errno in _FULL:
                    self._write_later()
                    return
                # The reader hears of it too; nothing that waits can be delivered any more.
                self._loop.call_soon(self._lose, None)
                return
            for fd in descriptors:
                os.close(fd)
            if sent < len(data):
                self._unsent[0] = data[sent:], []
            else:
                self._unsent.popleft()
        wanted = bool(self._unsent) and not self._closed
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._sock, self._write)
            elif not self._closed:
                self._loop.remove_writer(self._sock)

    def _write_later(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock)
        if self._again is None:
            self._again = self._loop.call_later(_FULL_SECONDS, self._write_again)

    def _write_again(self) -> None:
        self._again = None
        self._write()

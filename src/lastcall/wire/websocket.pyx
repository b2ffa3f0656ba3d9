# cython: language_level=3
"""Frames of the WebSocket protocol (RFC 6455), as a server reads and writes them. Bytes in, events out.

A ``FrameParser`` is fed whatever has come. A message that came in one frame and in one piece is made in one pass; what
comes in parts is collected, and text is checked as it comes: one bad byte fails the connection before the rest of its
message is there. Nothing is reserved for what a head only announces. Control frames may come between the frames of a
message (RFC 6455 5.4).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from lastcall.wire.buffer cimport ByteBuffer

cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char* data, Py_ssize_t n, const char* errors)

cdef enum:
    SCRATCH = 65536                  # text of at most this size that came whole is unmasked here
    LARGEST_CONTROL = 125            # RFC 6455 5.5
    MOST_REASON = 123                # and the code is before it

# One thread runs the server's loop, and nothing below gives the interpreter away between writing and reading it.
cdef char[SCRATCH] SCRATCH_SPACE


# 1004 is reserved; 1005, 1006 and 1015 are never sent (RFC 6455 7.4.1).
cdef bint may_close_with(long code) noexcept:
    """Whether a Close may carry the code: those that are registered for it, and 3000 to 4999."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


cdef char* put_head(char* at, int first, Py_ssize_t n) noexcept:
    """The head of an unmasked frame (RFC 6455 5.2) with ``n`` bytes; ``first`` is its first byte. At most FRAME_HEAD."""
    cdef int shift
    at[0] = <char>first
    if n < 126:
        at[1] = <char>n
        return at + 2
    if n < 65536:
        at[1] = 126
        at[2] = <char>(n >> 8)
        at[3] = <char>n
        return at + 4
    at[1] = 127
    for shift in range(8):
        at[2 + shift] = <char>(n >> (56 - 8 * shift))
    return at + 10


cdef bytes close_payload(int code, str reason):
    """What a Close carries; nothing for 1005. The reason is cut, at a character, to what a control frame takes."""
    cdef bytes text
    if code == 1005:
        return b""
    text = reason.encode("utf-8", "replace")
    if len(text) > MOST_REASON:
        text = text[:MOST_REASON].decode("utf-8", "ignore").encode()
    return code.to_bytes(2, "big") + text


cdef inline void unmask(char* to, const unsigned char* data, Py_ssize_t n, uint32_t mask, int phase) noexcept:
    """RFC 6455 5.3, by words. ``mask`` is as it lies in memory, ``phase`` how many bytes of the frame were before."""
    cdef unsigned char key[8]
    cdef uint64_t wide, word
    cdef Py_ssize_t i = 0
    cdef int k
    for k in range(8):
        key[k] = (<unsigned char*>&mask)[(k + phase) & 3]
    memcpy(&wide, key, 8)
    while i + 8 <= n:
        memcpy(&word, data + i, 8)
        word ^= wide
        memcpy(to + i, &word, 8)
        i += 8
    while i < n:
        to[i] = <char>(data[i] ^ key[i & 7])
        i += 1


@cython.final
cdef class FrameParser:
    """The frames of one client. ``max_size``: bytes of a message, inflated. ``inflater``: ``wire.deflate.Inflater``,
    where compression was agreed on."""

    def __init__(self, long long max_size, inflater=None):
        self._limit = max_size
        self._inflater = inflater
        self.reason = ""

    cdef int next(self, const unsigned char* p, Py_ssize_t n) except -1:
        """The next event in ``p[pos:n]``; the rest is for the next call. Behind FAILED there is nothing more."""
        cdef int wanted, event
        cdef Py_ssize_t take
        self.payload = None
        while not self._dead:
            if not self._in_payload:
                wanted = 2
                if self._have >= 2:
                    wanted = 6 + (0 if self._head[1] & 0x7F < 126 else 2 if self._head[1] & 0x7F == 126 else 8)
                take = min(<Py_ssize_t>(wanted - self._have), n - self.pos)
                if take > 0:
                    memcpy(self._head + self._have, p + self.pos, take)
                    self._have += <int>take
                    self.pos += take
                if self._have < wanted:
                    return MORE
                event = self._begin()
                if event:
                    return event
                continue
            take = n - self.pos
            if <uint64_t>take > self._left:
                take = <Py_ssize_t>self._left
            if self._left and not take:
                return MORE
            self._left -= take
            self.pos += take
            if self._frame >= CLOSE:
                unmask(<char*>self._control + (self._size - self._left - take), p + self.pos - take, take, self._mask,
                       self._phase)
                self._phase = (self._phase + take) & 3
                if self._left:
                    return MORE
                self._in_payload = False
                self._have = 0
                return self._end_control()
            event = self._data(p + self.pos - take, take, self._left == 0)
            if event:
                return event
        return FAILED

    # -- frames ---------------------------------------------------------------------------------------------------

    cdef int _begin(self) except -1:
        """A part of a head is there: two bytes, or all. An event, or MORE, which is none."""
        cdef int first = self._head[0], opcode = first & 0x0F, length = self._head[1] & 0x7F, i
        cdef uint64_t size
        cdef Py_ssize_t have = 0
        if self._have == 2:
            if first & 0x30:
                return self._fail(1002, "reserved bits are set")
            if opcode in (0x3, 0x4, 0x5, 0x6, 0x7) or opcode > PONG:
                return self._fail(1002, "an unknown opcode")
            if not self._head[1] & 0x80:
                return self._fail(1002, "a client's frames are masked")       # RFC 6455 5.1
            if opcode >= CLOSE:
                if not first & FIN or length > LARGEST_CONTROL:
                    return self._fail(1002, "a control frame is whole and short")
                if first & RSV1:
                    return self._fail(1002, "reserved bits are set")
            elif opcode == CONTINUATION:
                if not self._message:
                    return self._fail(1002, "a continuation of nothing")
                if first & RSV1:                                              # RFC 7692 6.1: of the first frame alone
                    return self._fail(1002, "reserved bits are set")
            elif self._message:
                return self._fail(1002, "a message within a message")
            elif first & RSV1 and self._inflater is None:
                return self._fail(1002, "reserved bits are set")
            return MORE
        size = length
        i = 2
        if length == 126:
            size = <uint64_t>self._head[2] << 8 | self._head[3]
            i = 4
            if size < 126:
                return self._fail(1002, "a length is as short as it can be")   # RFC 6455 5.2
        elif length == 127:
            size = 0
            for i in range(2, 10):
                size = size << 8 | self._head[i]
            i = 10
            if size < 65536 or size >> 63:
                return self._fail(1002, "a length is as short as it can be")
        memcpy(&self._mask, self._head + i, 4)
        self._frame = opcode
        self._fin = (first & FIN) != 0
        self._left = self._size = size
        self._phase = 0
        self._in_payload = True
        if opcode >= CLOSE:
            return MORE
        if opcode != CONTINUATION:
            self._message = opcode
            self._compressed = (first & RSV1) != 0
            self._due = 0
        # Compressed or not: what a message inflates to is more than it takes, but for a few bytes.
        if self._pieces is not None and not self._compressed:
            have = self._pieces.end - self._pieces.start
        if not self.discarding and size > <uint64_t>(self._limit - have):
            return self._fail(1009, "the message is too large")
        return MORE

    cdef int _data(self, const unsigned char* p, Py_ssize_t n, bint ends) except -1:
        """Bytes of a data frame, all of its rest if it ``ends`` here."""
        cdef char* at
        cdef bytes piece
        cdef int event = MORE
        if ends:
            self._in_payload = False
            self._have = 0
        if self.discarding:
            if ends and self._fin:
                self._message = 0
            return MORE
        if ends and self._fin and self._pieces is None and not self._compressed and <uint64_t>n == self._size:
            return self._whole(p, n)
        if self._pieces is None:
            self._pieces = ByteBuffer.__new__(ByteBuffer)
        if n:
            if self._compressed:
                piece = PyBytes_FromStringAndSize(NULL, n)
                unmask(PyBytes_AS_STRING(piece), p, n, self._mask, self._phase)
                event = self._inflate(piece)
            else:
                at = self._pieces.reserve(n)
                unmask(at, p, n, self._mask, self._phase)
                self._pieces.end += n
                if self._message == TEXT and not self._continue_text(<unsigned char*>at, n):
                    return self._fail(1007, "not UTF-8")
            self._phase = (self._phase + n) & 3
        if event == MORE and ends and self._fin:
            return self._end_message()
        return event

    cdef int _whole(self, const unsigned char* p, Py_ssize_t n) except -1:
        """A message in one frame and in one piece: nearly all are."""
        cdef int kind = self._message
        cdef bytes data
        self._message = 0
        if kind == TEXT and n <= SCRATCH:
            unmask(SCRATCH_SPACE, p, n, self._mask, 0)
            try:
                self.payload = PyUnicode_DecodeUTF8(SCRATCH_SPACE, n, NULL)
            except UnicodeDecodeError:
                return self._fail(1007, "not UTF-8")
            return MESSAGE
        data = PyBytes_FromStringAndSize(NULL, n)
        unmask(PyBytes_AS_STRING(data), p, n, self._mask, 0)
        if kind == TEXT:
            try:
                self.payload = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(data), n, NULL)
            except UnicodeDecodeError:
                return self._fail(1007, "not UTF-8")
        else:
            self.payload = data
        return MESSAGE

    cdef int _inflate(self, bytes piece) except -1:
        """Add what a piece of a compressed message, or its end (b""), inflates to."""
        cdef Py_ssize_t have = self._pieces.end - self._pieces.start
        cdef bytes found
        try:
            found = self._inflater.inflate(piece, self._limit - have)
        except OverflowError:
            return self._fail(1009, "the message is too large")
        except ValueError:
            return self._fail(1007, "not deflated")
        if found:
            self._pieces.append_bytes(found)
            if self._message == TEXT and not self._continue_text(
                <const unsigned char*>PyBytes_AS_STRING(found), PyBytes_GET_SIZE(found)
            ):
                return self._fail(1007, "not UTF-8")
        return MORE

    cdef int _end_message(self) except -1:
        cdef ByteBuffer pieces
        cdef int kind = self._message
        if self._compressed and self._inflate(b"") == FAILED:
            return FAILED
        pieces = self._pieces
        self._pieces = None
        self._message = 0
        if kind != TEXT:
            self.payload = PyBytes_FromStringAndSize(pieces.data + pieces.start, pieces.end - pieces.start) if (
                pieces.data != NULL) else b""
        elif self._due:
            return self._fail(1007, "not UTF-8")
        else:
            self.payload = PyUnicode_DecodeUTF8(pieces.data + pieces.start, pieces.end - pieces.start, NULL) if (
                pieces.data != NULL) else ""
        return MESSAGE

    cdef int _end_control(self) except -1:
        cdef int n = <int>self._size
        cdef bytes payload = PyBytes_FromStringAndSize(<char*>self._control, n)
        if self._frame != CLOSE:
            self.payload = payload
            return GOT_PING if self._frame == PING else GOT_PONG
        if n == 0:
            self.code, self.reason = 1005, ""
            return GOT_CLOSE
        if n == 1:
            return self._fail(1002, "half of a close code")
        self.code = self._control[0] << 8 | self._control[1]
        if not may_close_with(self.code):
            return self._fail(1002, "no code that a Close may carry")
        try:
            self.reason = payload[2:].decode()
        except UnicodeDecodeError:
            return self._fail(1007, "not UTF-8")
        return GOT_CLOSE

    cdef int _fail(self, int code, str reason) except -1:
        """The peer broke the protocol: RFC 6455 7.1.7."""
        self._dead = True
        self._pieces = None
        self.payload = None
        self.code, self.reason = code, reason
        return FAILED

    # -- UTF-8 ----------------------------------------------------------------------------------------------------

    cdef bint _continue_text(self, const unsigned char* p, Py_ssize_t n) noexcept:
        """Whether the text, as far as it has come, can still be UTF-8 (RFC 3629 4): each byte is one that may follow."""
        cdef Py_ssize_t i = 0
        cdef uint64_t word
        cdef unsigned char c
        while i < n:
            if self._due == 0:
                while i + 8 <= n:                     # ASCII, by words
                    memcpy(&word, p + i, 8)
                    if word & <uint64_t>0x8080808080808080:
                        break
                    i += 8
                if i == n:
                    break
            c = p[i]
            i += 1
            if self._due:
                if c < self._low or c > self._high:
                    return False
                self._due -= 1
                self._low, self._high = 0x80, 0xBF
            elif c >= 0x80:
                self._low, self._high = 0x80, 0xBF
                if 0xC2 <= c <= 0xDF:
                    self._due = 1
                elif 0xE0 <= c <= 0xEF:
                    self._due = 2
                    if c == 0xE0:
                        self._low = 0xA0
                    elif c == 0xED:
                        self._high = 0x9F             # no surrogates
                elif 0xF0 <= c <= 0xF4:
                    self._due = 3
                    if c == 0xF0:
                        self._low = 0x90
                    elif c == 0xF4:
                        self._high = 0x8F
                else:
                    return False
        return True

    def discard(self):
        """From now on data frames are read only to find what is behind them: we have sent our Close."""
        self.discarding = True
        self._pieces = None

    @property
    def between_messages(self):
        """Whether no message is under way, nor a frame."""
        return not self._message and not self._in_payload and not self._have

    # For tests and tools.

    def feed(self, bytes data not None):
        """The events in ``data``, a list: ("message", str or bytes), ("ping", bytes), ("pong", bytes), ("close", code,
        reason), ("failed", code, reason). Nothing comes behind the last."""
        cdef list found = []
        cdef int event
        self.pos = 0
        while True:
            event = self.next(<const unsigned char*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            if event == MORE:
                return found
            if event == MESSAGE:
                found.append(("message", self.payload))
            elif event == GOT_PING:
                found.append(("ping", self.payload))
            elif event == GOT_PONG:
                found.append(("pong", self.payload))
            else:
                found.append(("close" if event == GOT_CLOSE else "failed", self.code, self.reason))
                if event == FAILED:
                    return found


def encode_frame(int opcode, bytes payload not None, *, bint fin=True, bint compressed=False):
    """A frame as a server sends it (RFC 6455 5.2), for tests and tools."""
    cdef char[FRAME_HEAD] head
    cdef char* end = put_head(head, opcode | (FIN if fin else 0) | (RSV1 if compressed else 0), len(payload))
    return PyBytes_FromStringAndSize(head, end - head) + payload


def encode_close(int code, str reason not None=""):
    """The payload of a Close; empty for 1005. Raises ValueError for a code that no Close may carry."""
    if code != 1005 and not may_close_with(code):
        raise ValueError(f"{code} is no code that a Close may carry (RFC 6455 7.4)")
    return close_payload(code, reason)

# cython: language_level=3
"""HTTP/1.1 response heads: what an application asked for, checked and encoded (RFC 9110, RFC 9112).

Framing and connection management belong to the server: ``Transfer-Encoding`` and the hop-by-hop fields that an
application sets are dropped (RFC 9110 7.6.1), its ``Connection: close`` is honoured, its ``Content-Length`` is
remembered and enforced.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy, memset

from http import HTTPStatus

from lastcall.base.errors import LocalProtocolError
from lastcall.wire.buffer cimport ByteBuffer

cdef enum:
    LOWEST_STATUS = 200          # interim responses are the server's affair
    HIGHEST_STATUS = 999
    NAME_BUFFER = 24             # longer than every name that is special here

cdef unsigned char[256] TOKEN    # RFC 9110 5.6.2 tchar, lower-cased; 0 elsewhere
cdef list STATUS_LINES = [None] * (HIGHEST_STATUS + 1)
# Kept between answers so that each need not make its own. None while one is being encoded: the application's iterables
# run its code, which may answer something else meanwhile, in this thread or in another one.
cdef ByteBuffer _scratch = None

# Fields of one connection, not of the message: dropped (RFC 9110 7.6.1; "trailer" announces what is never sent).
cdef frozenset HOP_BY_HOP = frozenset(
    (b"transfer-encoding", b"keep-alive", b"proxy-connection", b"upgrade", b"te", b"trailer")
)


cdef int _make_tables() except -1:
    cdef int c
    memset(TOKEN, 0, sizeof(TOKEN))
    for c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz":
        TOKEN[c] = <unsigned char>c
    for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        TOKEN[c] = <unsigned char>(c + 32)
    for status in HTTPStatus:
        STATUS_LINES[status] = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    return 0


_make_tables()


cdef bytes status_line(int status):
    """``HTTP/1.1 200 OK`` with its CRLF. A status without a registered phrase gets an empty one (RFC 9112 4)."""
    cdef bytes line = <bytes>STATUS_LINES[status]
    if line is None:
        line = f"HTTP/1.1 {status} \r\n".encode("ascii")
        STATUS_LINES[status] = line
    return line


cdef bint _has_token(bytes value, bytes token):
    cdef bytes part
    for part in value.lower().split(b","):
        if part.strip() == token:
            return True
    return False


@cython.final
cdef class ResponseHead:
    """A checked ``http.response.start``: immutable, so that nothing an application changes later gets on the wire."""

    def __init__(self):
        raise TypeError("made by encode_response()")


cdef int _append_line(ResponseHead head, ByteBuffer lines, bytes name, bytes value) except -1:
    """Check one field and append it to the buffer, unless it is the server's to write."""
    cdef const unsigned char* p = <const unsigned char*>PyBytes_AS_STRING(name)
    cdef const char* v = PyBytes_AS_STRING(value)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(name), m = PyBytes_GET_SIZE(value), i
    cdef unsigned char[NAME_BUFFER] lowered
    cdef unsigned char c
    cdef long long length
    cdef char* out
    for i in range(n):
        c = TOKEN[p[i]]
        if c == 0:
            raise LocalProtocolError(f"response header name {name!r} is not a token")
        if i < NAME_BUFFER:
            lowered[i] = c
    if n == 0:
        raise LocalProtocolError("response header name is empty")
    if memchr(v, c"\r", m) != NULL or memchr(v, c"\n", m) != NULL or memchr(v, 0, m) != NULL:
        raise LocalProtocolError(f"response header {name!r} has CR, LF or NUL in its value")
    if n < NAME_BUFFER:
        # Only names that begin with these letters can be special.
        c = lowered[0]
        if c == c"c":
            if n == 14 and memcmp(lowered, b"content-length", 14) == 0:
                if head.content_length >= 0:
                    raise LocalProtocolError("response has more than one content-length header")
                if m == 0 or m > 18:
                    raise LocalProtocolError(f"response header content-length: {value!r} is not a number of bytes")
                length = 0
                for i in range(m):
                    if not c"0" <= v[i] <= c"9":
                        raise LocalProtocolError(f"response header content-length: {value!r} is not a number of bytes")
                    length = length * 10 + (v[i] - c"0")
                head.content_length = length
                if head.status == 204:
                    return 0                              # RFC 9110 8.6: none in a 204
            elif n == 10 and memcmp(lowered, b"connection", 10) == 0:
                if _has_token(value, b"close"):
                    head.close = True
                return 0
        elif c == c"d":
            if n == 4 and memcmp(lowered, b"date", 4) == 0:
                head.has_date = True
        elif c == c"s":
            if n == 6 and memcmp(lowered, b"server", 6) == 0:
                head.has_server = True
        elif c == c"t" or c == c"k" or c == c"p" or c == c"u":
            if lowered[:n] in HOP_BY_HOP:
                return 0
    out = lines.reserve(n + m + 4)
    memcpy(out, p, n)
    out[n] = c":"
    out[n + 1] = c" "
    memcpy(out + n + 2, v, m)
    out[n + m + 2] = c"\r"
    out[n + m + 3] = c"\n"
    lines.end += n + m + 4
    return 0


cdef ResponseHead encode_response(object status, object headers, tuple defaults):
    """Check and encode. ``headers``: an iterable of (name, value) bytes pairs, or None; ``defaults``: pairs that are
    added where the application has not set the same name. Raises LocalProtocolError; nothing is half-done then."""
    global _scratch
    cdef ResponseHead head = ResponseHead.__new__(ResponseHead)
    cdef ByteBuffer lines
    cdef object pair, name, value
    if not isinstance(status, int) or not LOWEST_STATUS <= status <= HIGHEST_STATUS:
        raise LocalProtocolError(f"response status must be an int from 200 to 999, not {status!r}")
    head.status = status
    head.content_length = -1
    head.bodiless = head.status == 204 or head.status == 304
    lines, _scratch = _scratch, None
    if lines is None:
        lines = ByteBuffer()
    if headers is not None:
        if defaults:
            headers = list(headers)
        for pair in headers:
            try:
                name, value = pair
            except (TypeError, ValueError):
                raise LocalProtocolError(f"response header {pair!r} is not a (name, value) pair") from None
            if not PyBytes_CheckExact(name) or not PyBytes_CheckExact(value):
                if not isinstance(name, (bytes, bytearray, memoryview)) or not isinstance(
                    value, (bytes, bytearray, memoryview)
                ):
                    raise LocalProtocolError(f"response header {pair!r} must be two byte strings")
                name, value = bytes(name), bytes(value)
            _append_line(head, lines, <bytes>name, <bytes>value)
    if defaults:
        present = {bytes(name).lower() for name, _ in headers} if headers is not None else set()
        for name, value in defaults:
            if name.lower() not in present:
                _append_line(head, lines, name, value)
    head.block = PyBytes_FromStringAndSize(lines.data, lines.end) if lines.end else b""
    lines.start = lines.end = 0
    _scratch = lines
    return head


def encode_head(status, headers=None, defaults=()):
    """``(status line + header lines, ResponseHead)`` for tests and tools; raises LocalProtocolError."""
    cdef ResponseHead head = encode_response(status, headers, tuple(defaults))
    return status_line(head.status) + head.block, head

# cython: language_level=3
"""Response heads as an application asks for them, checked (RFC 9110). Each HTTP version writes them its own way.

Framing and connection management belong to the server: ``Transfer-Encoding`` and the hop-by-hop fields that an
application sets are dropped (RFC 9110 7.6.1), its ``Connection: close`` is honoured, its ``Content-Length`` is
remembered and enforced.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.string cimport memcmp, memset

from lastcall.base.errors import LocalProtocolError

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object o)
    long PyLong_AsLongAndOverflow(object o, int* overflow) noexcept

cdef enum:
    LOWEST_STATUS = 200          # interim responses are the server's affair
    HIGHEST_STATUS = 999
    NAME_BUFFER = 24             # longer than every name that is special here
    KNOWN_NAMES = 64             # a power of two
    KNOWN_HEADS = 32             # a power of two
    LARGEST_HEAD = 1024          # bytes of names and values

cdef enum Meaning:
    ORDINARY
    DATE
    SERVER
    CONTENT_LENGTH
    CONNECTION
    HOP_BY_HOP                   # of one connection, not of the message: dropped ("trailer" announces what never comes)

cdef unsigned char[256] TOKEN    # RFC 9110 5.6.2 tchar, lower-cased; 0 elsewhere

# Applications send the same constants again and again: names that were looked at lately, by identity, which is enough
# since bytes do not change. What is kept here are names alone, never values.
cdef tuple NO_CONTENT = (b"content-length", b"0")
cdef list _known = [None] * KNOWN_NAMES
cdef Meaning[KNOWN_NAMES] _meanings

# And whole heads that were made of constants alone: a head is immutable, so an equal one need not be made again.
cdef list _heads = [None] * KNOWN_HEADS
cdef frozenset SENSITIVE = frozenset(
    (b"set-cookie", b"location", b"authorization", b"authentication-info", b"www-authenticate")
)


cdef void _make_table() noexcept:
    cdef int c
    memset(TOKEN, 0, sizeof(TOKEN))
    for c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz":
        TOKEN[c] = <unsigned char>c
    for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        TOKEN[c] = <unsigned char>(c + 32)


_make_table()


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
        raise TypeError("made by check_head()")

    @property
    def fields(self):
        """The (name, value) pairs that go out, in order, names as they were given."""
        return tuple(self.pairs)


@cython.boundscheck(False)   # indices are masked, and ``i`` is below the length of what it indexes
@cython.wraparound(False)
cdef int _meaning(bytes name) except -1:
    """What a field name means here; raises LocalProtocolError if it is no token (RFC 9110 5.1)."""
    cdef size_t slot = (<size_t><PyObject*>name >> 4) & (KNOWN_NAMES - 1)
    cdef const unsigned char* p
    cdef Py_ssize_t n, i
    cdef unsigned char[NAME_BUFFER] lowered
    cdef unsigned char c
    cdef Meaning found = ORDINARY
    lowered[0] = 0
    if _known[slot] is name:
        return _meanings[slot]
    p = <const unsigned char*>PyBytes_AS_STRING(name)
    n = PyBytes_GET_SIZE(name)
    if n == 0:
        raise LocalProtocolError("response header name is empty")
    for i in range(n):
        c = TOKEN[p[i]]
        if c == 0:
            raise LocalProtocolError(f"response header name {name!r} is not a token")
        if i < NAME_BUFFER:
            lowered[i] = c
    if n < NAME_BUFFER:
        # Only names that begin with these letters can be special.
        c = lowered[0]
        if c == c"c":
            if n == 14 and memcmp(lowered, b"content-length", 14) == 0:
                found = CONTENT_LENGTH
            elif n == 10 and memcmp(lowered, b"connection", 10) == 0:
                found = CONNECTION
        elif c == c"d":
            if n == 4 and memcmp(lowered, b"date", 4) == 0:
                found = DATE
        elif c == c"s":
            if n == 6 and memcmp(lowered, b"server", 6) == 0:
                found = SERVER
        elif c == c"t":
            if (n == 17 and memcmp(lowered, b"transfer-encoding", 17) == 0) or (
                n == 7 and memcmp(lowered, b"trailer", 7) == 0
            ) or (n == 2 and memcmp(lowered, b"te", 2) == 0):
                found = HOP_BY_HOP
        elif (c == c"k" and n == 10 and memcmp(lowered, b"keep-alive", 10) == 0) or (
            c == c"p" and n == 16 and memcmp(lowered, b"proxy-connection", 16) == 0
        ) or (c == c"u" and n == 7 and memcmp(lowered, b"upgrade", 7) == 0):
            found = HOP_BY_HOP
    _known[slot] = name
    _meanings[slot] = found
    return found


cdef int _declare_length(ResponseHead head, bytes value) except -1:
    """The application's ``Content-Length`` (RFC 9110 8.6)."""
    cdef const char* v = PyBytes_AS_STRING(value)
    cdef Py_ssize_t m = PyBytes_GET_SIZE(value), i
    cdef long long length = 0
    if head.content_length >= 0:
        raise LocalProtocolError("response has more than one content-length header")
    if m == 0 or m > 18:
        raise LocalProtocolError(f"response header content-length: {value!r} is not a number of bytes")
    for i in range(m):
        if not c"0" <= v[i] <= c"9":
            raise LocalProtocolError(f"response header content-length: {value!r} is not a number of bytes")
        length = length * 10 + (v[i] - c"0")
    head.content_length = length
    return 0


cdef int _add(ResponseHead head, object pair, bytes name, bytes value) except -1:
    """Check one field and keep it, unless it is the server's to write. ``pair`` is both, as a tuple, or None."""
    cdef int meaning = _meaning(name)
    cdef const char* v = PyBytes_AS_STRING(value)
    cdef Py_ssize_t m = PyBytes_GET_SIZE(value), i
    cdef bint bad = False
    for i in range(m):                       # without a way out in the middle it is done sixteen bytes at a time
        bad |= (v[i] == c"\r") | (v[i] == c"\n") | (v[i] == 0)
    if bad:
        raise LocalProtocolError(f"response header {name!r} has CR, LF or NUL in its value")
    if meaning != ORDINARY:
        if meaning == CONTENT_LENGTH:
            _declare_length(head, value)
            if head.status == 204 or head.status == 205:
                return 0                     # RFC 9110 8.6: none in a 204; a 205 gets its own below
        elif meaning == CONNECTION:
            head.close = head.close or _has_token(value, b"close")
            return 0
        elif meaning == HOP_BY_HOP:
            return 0
        elif meaning == DATE:
            head.has_date = True
        else:
            head.has_server = True
    head.pairs.append((name, value) if pair is None else pair)
    head.size += PyBytes_GET_SIZE(name) + m
    return 0


cdef ResponseHead check_head(object status, object headers, tuple defaults):
    """Check what an application wants to send. ``headers``: an iterable of (name, value) bytes pairs, or None;
    ``defaults``: pairs that are added where the application has not set the same name. Raises LocalProtocolError."""
    cdef ResponseHead head
    cdef size_t slot
    if type(headers) is not list or not <list>headers:
        return _check(status, headers, defaults)
    slot = (<size_t>PyList_GET_ITEM(headers, 0) >> 4) & (KNOWN_HEADS - 1)
    head = <ResponseHead>_heads[slot]
    if head is not None and _is_same(head, status, <list>headers, defaults):
        return head
    head = _check(status, headers, defaults)
    if _is_constant(head, <list>headers):
        _heads[slot] = head
    return head


cdef bint _is_same(ResponseHead head, object status, list headers, tuple defaults):
    """Whether ``head`` was made of these very objects."""
    cdef Py_ssize_t i, n = PyList_GET_SIZE(headers)
    cdef int overflow = 0
    if head.asked != n or head.defaults is not defaults or type(status) is not int:
        return False
    if PyLong_AsLongAndOverflow(status, &overflow) != head.status:
        return False
    for i in range(n):
        if PyList_GET_ITEM(headers, i) != PyList_GET_ITEM(head.pairs, i):
            return False
    return True


cdef bint _is_constant(ResponseHead head, list headers):
    """Whether these pairs look like constants of the application's code: they go out as they are (so none was dropped,
    copied or added), and somebody else holds them too. What is kept is little, and nothing that may hold a secret."""
    cdef Py_ssize_t i, n = PyList_GET_SIZE(headers)
    if PyList_GET_SIZE(head.pairs) != n or head.size > LARGEST_HEAD:
        return False
    for i in range(n):
        # 2: the list that was sent, and ours.
        if PyList_GET_ITEM(headers, i) != PyList_GET_ITEM(head.pairs, i) or (
            Py_REFCNT(<object>PyList_GET_ITEM(headers, i)) <= 2
        ):
            return False
    for name, _ in head.pairs:
        if name.lower() in SENSITIVE:
            return False
    return True


cdef ResponseHead _check(object status, object headers, tuple defaults):
    cdef ResponseHead head = ResponseHead.__new__(ResponseHead)
    cdef object pair, name, value
    if not isinstance(status, int) or not LOWEST_STATUS <= status <= HIGHEST_STATUS:
        raise LocalProtocolError(f"response status must be an int from 200 to 999, not {status!r}")
    head.status = status
    head.content_length = -1
    head.bodiless = head.status == 204 or head.status == 205 or head.status == 304
    head.pairs = []
    head.defaults = defaults
    if headers is not None:
        if defaults:
            headers = list(headers)
        for pair in headers:
            if PyTuple_CheckExact(pair) and PyTuple_GET_SIZE(pair) == 2:
                name = <object>PyTuple_GET_ITEM(pair, 0)
                value = <object>PyTuple_GET_ITEM(pair, 1)
            else:
                try:
                    name, value = pair
                except (TypeError, ValueError):
                    raise LocalProtocolError(f"response header {pair!r} is not a (name, value) pair") from None
                pair = None
            if not PyBytes_CheckExact(name) or not PyBytes_CheckExact(value):
                if not isinstance(name, (bytes, bytearray, memoryview)) or not isinstance(
                    value, (bytes, bytearray, memoryview)
                ):
                    raise LocalProtocolError(f"response header {(name, value)!r} must be two byte strings")
                name, value, pair = bytes(name), bytes(value), None
            _add(head, pair, <bytes>name, <bytes>value)
    if head.status == 205:                   # RFC 9110 15.3.6: no content, but framed as any other response
        head.content_length = 0
        head.pairs.append(NO_CONTENT)
        head.size += PyBytes_GET_SIZE(<bytes>NO_CONTENT[0]) + PyBytes_GET_SIZE(<bytes>NO_CONTENT[1])
    head.asked = PyList_GET_SIZE(head.pairs)
    if defaults:
        present = {bytes(name).lower() for name, _ in headers} if headers is not None else set()
        for pair in defaults:
            if pair[0].lower() not in present:
                _add(head, pair, <bytes?>pair[0], <bytes?>pair[1])
    return head


def checked(status, headers=None, defaults=()):
    """``check_head`` for tests and tools."""
    return check_head(status, headers, tuple(defaults))

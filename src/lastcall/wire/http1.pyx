# cython: language_level=3
# length: one state machine and the grammar of its lines; splitting the grammar off would cost a call per header field.
"""HTTP/1.1 requests, sans-IO and strict (RFC 9112, RFC 9110).

Theory of operation
-------------------
The parser holds no bytes. The caller shows it a buffer, ``next()`` consumes complete lines or body bytes from it and
returns one event; what is not consumed must be shown again, with more behind it. A line is parsed once, when its LF has
come, straight from the caller's buffer into the objects that the application will see; ``scanned`` remembers how far an
unfinished line was searched, so a client that sends one byte at a time costs linear, not quadratic, time.

    START ──request line──▶ FIELDS ──empty line──▶ START                     (no body)
                                        ├─────────▶ LENGTH_BODY ──▶ START
                                        └─────────▶ CHUNK_SIZE ──▶ CHUNK_DATA ──▶ CHUNK_END ─┐
                                                        ▲   └──"0"──▶ TRAILERS ──▶ START     │
                                                        └────────────────────────────────────┘
    any state ──violation──▶ BROKEN  (status and reason say what to answer; nothing more is ever parsed)

Everything that two parsers could read in two ways is refused, since that is what request smuggling is made of
(RFC 9112 11.2): there are no lenient switches.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset

from lastcall.base.errors import RemoteProtocolError
from lastcall.wire.recent cimport fingerprint, recall, remember

cdef extern from *:
    """
    /* 1 if a field value or a request line holds a control character other than HTAB.
       A plain loop without branches, so that the compiler makes vector code of it. */
    static int lastcall_has_ctl(const unsigned char *p, Py_ssize_t n) {
        unsigned char bad = 0;
        for (Py_ssize_t i = 0; i < n; i++) {
            unsigned char c = p[i];
            bad |= (unsigned char)((c < 0x20) & (c != 0x09)) | (unsigned char)(c == 0x7f);
        }
        return bad;
    }
    /* 1 if a request target holds anything but VCHAR (RFC 5234), or a "#": a fragment is never sent. */
    static int lastcall_bad_target(const unsigned char *p, Py_ssize_t n) {
        unsigned char bad = 0;
        for (Py_ssize_t i = 0; i < n; i++) {
            unsigned char c = p[i];
            bad |= (unsigned char)(c < 0x21) | (unsigned char)(c > 0x7e) | (unsigned char)(c == '#');
        }
        return bad;
    }
    """
    bint lastcall_has_ctl(const unsigned char* p, Py_ssize_t n) noexcept nogil
    bint lastcall_bad_target(const unsigned char* p, Py_ssize_t n) noexcept nogil

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET6
    int inet_pton(int family, const char* text, void* address)

cdef enum:
    MAX_BLANK_LINES = 2          # RFC 9112 2.2: a server SHOULD ignore at least one; two, and no more
    MAX_CHUNK_LINE = 4096        # a chunk-size line with its extensions
    NAME_BUFFER = 64             # longest field name lower-cased on the stack
    EVENT_STREAM = 17            # the length of "text/event-stream"
    SLOTS = 512                  # of the table of known names; a power of two
    IPV6_BUFFER = 46             # INET6_ADDRSTRLEN: the longest address, and a NUL
    EXACT_BUFFER = 4096          # next_event() copies no more than this, and so stays linear

# What the fields that the parser itself must understand are called in the code.
cdef enum Known:
    ORDINARY = 0
    HOST
    CONTENT_LENGTH
    TRANSFER_ENCODING
    CONNECTION
    EXPECT
    UPGRADE
    SECRET           # nothing to understand, but nothing to keep for later either
    UNKNOWN          # no common name

cdef struct KnownName:
    PyObject* name
    const char* text
    Py_ssize_t length
    int which

# RFC 9110 5.6.2 tchar, lower-cased; 0 for every byte that no token may hold.
cdef unsigned char[256] TOKEN
# RFC 3986 reg-name: unreserved, pct-encoded and sub-delims (the "%" is checked apart).
cdef unsigned char[256] REG_NAME
cdef KnownName[SLOTS] KNOWN
cdef list _kept_alive = []       # owns the bytes objects behind KNOWN

cdef str HEAD_METHOD = "HEAD"
cdef str OPTIONS = "OPTIONS"
# Each registered method is always the same object, so that who compares need not look at the letters.
cdef dict METHODS = {m.encode(): m for m in ("GET", HEAD_METHOD, "POST", "PUT", "DELETE", OPTIONS, "PATCH", "TRACE")}

cdef bytes EMPTY = b""
cdef bytes HOST_NAME        # the shared object that every parsed Host field begins with
cdef bytes ACCEPT_NAME      # and every Accept field
cdef str SLASH = "/"
cdef bytes SLASH_BYTES = b"/"


cdef unsigned int _hash(const unsigned char* p, Py_ssize_t n) noexcept nogil:
    cdef unsigned int h = <unsigned int>n
    cdef Py_ssize_t i
    for i in range(n):
        h = h * 31 + p[i]
    return h


cdef int _make_tables() except -1:
    global HOST_NAME, ACCEPT_NAME
    cdef int c
    cdef bytes name
    cdef unsigned int slot
    memset(TOKEN, 0, sizeof(TOKEN))
    memset(REG_NAME, 0, sizeof(REG_NAME))
    for c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz":
        TOKEN[c] = <unsigned char>c
    for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        TOKEN[c] = <unsigned char>(c + 32)
    for c in b"-._~!$&'()*+,;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        REG_NAME[c] = 1
    memset(KNOWN, 0, sizeof(KNOWN))
    special = {b"host": HOST, b"content-length": CONTENT_LENGTH, b"transfer-encoding": TRANSFER_ENCODING,
               b"connection": CONNECTION, b"expect": EXPECT, b"upgrade": UPGRADE,
               b"cookie": SECRET, b"authorization": SECRET, b"proxy-authorization": SECRET, b"x-api-key": SECRET,
               b"x-csrf-token": SECRET, b"idempotency-key": SECRET, b"mcp-session-id": SECRET, b"referer": SECRET}
    for name in COMMON_NAMES:
        _kept_alive.append(name)
        if name == b"host":
            HOST_NAME = name
        elif name == b"accept":
            ACCEPT_NAME = name
        slot = _hash(<const unsigned char*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)) & (SLOTS - 1)
        while KNOWN[slot].name != NULL:
            slot = (slot + 1) & (SLOTS - 1)
        KNOWN[slot].name = <PyObject*>name
        KNOWN[slot].text = PyBytes_AS_STRING(name)
        KNOWN[slot].length = PyBytes_GET_SIZE(name)
        KNOWN[slot].which = special.get(name, ORDINARY)
    return 0


# Names seen in nearly every request share one bytes object each, for the life of the process.
COMMON_NAMES = tuple(
    b"""host connection content-length content-type transfer-encoding expect upgrade user-agent accept accept-encoding
    accept-language accept-charset cache-control pragma cookie referer origin authorization proxy-authorization date
    if-match if-none-match if-modified-since if-unmodified-since if-range range te trailer via forwarded
    x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-server x-forwarded-prefix
    x-real-ip x-request-id x-correlation-id x-requested-with x-csrf-token x-api-key idempotency-key traceparent
    tracestate baggage b3 x-b3-traceid x-b3-spanid x-b3-sampled x-amzn-trace-id x-cloud-trace-context cf-ray
    cf-connecting-ip cf-ipcountry cf-visitor true-client-ip sec-fetch-dest sec-fetch-mode sec-fetch-site
    sec-fetch-user sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-gpc dnt priority upgrade-insecure-requests
    keep-alive proxy-connection last-event-id access-control-request-method access-control-request-headers
    sec-websocket-key sec-websocket-version sec-websocket-protocol sec-websocket-extensions
    mcp-session-id mcp-protocol-version from max-forwards content-encoding content-language content-disposition
    """.split()
)
_make_tables()


cdef inline bytes _field_name(const unsigned char* p, Py_ssize_t n, unsigned int h, int* which):
    """The lower-cased name as bytes: the shared object where it is a common one."""
    cdef unsigned int slot = h & (SLOTS - 1)
    while KNOWN[slot].name != NULL:
        if KNOWN[slot].length == n and memcmp(KNOWN[slot].text, p, n) == 0:
            which[0] = KNOWN[slot].which
            return <bytes>KNOWN[slot].name
        slot = (slot + 1) & (SLOTS - 1)
    which[0] = UNKNOWN
    return PyBytes_FromStringAndSize(<const char*>p, n)


cdef inline bint _equals(const unsigned char* p, Py_ssize_t n, const char* lowered, Py_ssize_t length) noexcept:
    """Case-insensitive comparison with a lower-case token."""
    cdef Py_ssize_t i
    if n != length:
        return False
    for i in range(n):
        if TOKEN[p[i]] != <unsigned char>lowered[i]:
            return False
    return True


cdef inline int _hex(unsigned char c) noexcept:
    if c"0" <= c <= c"9":
        return c - c"0"
    c = c | 0x20
    if c"a" <= c <= c"f":
        return c - c"a" + 10
    return -1


cdef bint _valid_host(const unsigned char* p, Py_ssize_t n) noexcept:
    """uri-host [ ":" port ] (RFC 9110 7.2, RFC 3986 3.2.2). An empty value is valid by that grammar."""
    cdef Py_ssize_t i = 0
    cdef char[IPV6_BUFFER] text
    cdef unsigned char[16] address
    if n and p[0] == c"[":
        # IPv6address; an IPvFuture has never been seen. (A zone, RFC 6874, is no matter of requests.)
        i = 1
        while i < n and p[i] != c"]":
            if i >= IPV6_BUFFER:
                return False
            text[i - 1] = <char>p[i]
            i += 1
        if i >= n:
            return False
        text[i - 1] = 0
        if inet_pton(AF_INET6, text, address) != 1:
            return False
        i += 1
    else:
        while i < n and p[i] != c":":
            if p[i] == c"%":
                if i + 2 >= n or _hex(p[i + 1]) < 0 or _hex(p[i + 2]) < 0:
                    return False
                i += 3
                continue
            if not REG_NAME[p[i]]:
                return False
            i += 1
    if i == n:
        return True
    if p[i] != c":":
        return False
    i += 1
    if n - i > 5:
        return False
    while i < n:
        if not c"0" <= p[i] <= c"9":
            return False
        i += 1
    return True


cdef inline Py_ssize_t _skip_space(const unsigned char* p, Py_ssize_t n, Py_ssize_t i) noexcept:
    while i < n and (p[i] == c" " or p[i] == c"\t"):
        i += 1
    return i


cdef inline Py_ssize_t _skip_token(const unsigned char* p, Py_ssize_t n, Py_ssize_t i) noexcept:
    while i < n and TOKEN[p[i]]:
        i += 1
    return i


cdef bint _valid_extensions(const unsigned char* p, Py_ssize_t n) noexcept:
    """*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ) (RFC 9112 7.1.1), without control characters."""
    cdef Py_ssize_t i = 0, start
    while i < n:
        i = _skip_space(p, n, i)
        if i >= n or p[i] != c";":
            return False
        start = _skip_space(p, n, i + 1)
        i = _skip_token(p, n, start)
        if i == start:
            return False
        start = _skip_space(p, n, i)
        if start >= n or p[start] != c"=":
            continue                         # no value
        start = _skip_space(p, n, start + 1)
        if start < n and p[start] == c'"':
            i = start + 1
            while i < n and p[i] != c'"':
                i += 2 if p[i] == c"\\" else 1
            if i >= n:
                return False
            i += 1
        else:
            i = _skip_token(p, n, start)
            if i == start:
                return False
    return True


cdef str _decode_path(const unsigned char* p, Py_ssize_t n):
    """Percent-decoded, then UTF-8; what is not UTF-8 becomes U+FFFD, a stray "%" stays (ASGI HTTP scope: path)."""
    cdef unsigned char* out
    cdef Py_ssize_t i = 0, j = 0
    cdef int high, low
    if memchr(p, c"%", n) == NULL:
        return PyUnicode_DecodeASCII(<const char*>p, n, NULL)
    out = <unsigned char*>malloc(n)
    if out == NULL:
        raise MemoryError()
    try:
        while i < n:
            if p[i] == c"%" and i + 2 < n:
                high, low = _hex(p[i + 1]), _hex(p[i + 2])
                if high >= 0 and low >= 0:
                    out[j] = <unsigned char>(high * 16 + low)
                    i += 3
                    j += 1
                    continue
            out[j] = p[i]
            i += 1
            j += 1
        return PyUnicode_DecodeUTF8(<const char*>out, j, "replace")
    finally:
        free(out)


@cython.final
cdef class RequestParser:
    """Parses the requests of one connection, one after the other.

    Compiled callers use ``next()``; ``receive_data()`` and ``next_event()`` are the same machine with a buffer of its
    own, for tests and tools. Limits are bytes, but for ``limit_headers`` (a count); ``limit_body`` -1 is none.
    """

    def __init__(self, *, Py_ssize_t limit_request_line=16384, Py_ssize_t limit_headers=128,
                 Py_ssize_t limit_header_bytes=65536, long long limit_body=-1):
        if limit_request_line < 0 or limit_headers < 0 or limit_header_bytes < 0 or limit_body < -1:
            raise ValueError("a limit must not be negative")
        self.limit_request_line = limit_request_line
        self.limit_headers = limit_headers
        self.limit_header_bytes = limit_header_bytes
        self.limit_body = limit_body
        self.state = START
        self.content_length = -1

    # -- for tests and tools ---------------------------------------------------------------------------------------------

    def receive_data(self, bytes data not None):
        """Append bytes from the peer. Call ``next_event()`` until it says NEED_DATA before calling this again."""
        if self._buffer is None:
            self._buffer = bytearray()
        self._buffer += data

    def next_event(self):
        """The next ``(event, payload)``: payload is the body bytes for DATA, None for the others.

        For HEAD the fields are attributes of the parser until the next HEAD. Raises RemoteProtocolError, with the
        status to answer, on a violation; the parser is then broken for good.
        """
        cdef const char* p
        cdef char* copy = NULL
        cdef Py_ssize_t n
        cdef int event
        cdef bytes payload = None
        if self._buffer is None:
            self._buffer = bytearray()
        p = PyByteArray_AS_STRING(self._buffer)
        n = PyByteArray_GET_SIZE(self._buffer)
        if 0 < n <= EXACT_BUFFER:
            # A bytearray has room behind its end; a memory checker sees a read beyond a block of just these bytes.
            copy = <char*>malloc(n)
            if copy == NULL:
                raise MemoryError()
            memcpy(copy, p, n)
            p = copy
        try:
            self.pos = 0
            event = self.next(<const unsigned char*>p, n)
            if event == FAILED:
                raise RemoteProtocolError(self.reason, self.status)
            if event == DATA:
                payload = PyBytes_FromStringAndSize(p + self.data_at, self.data_len)
        finally:
            free(copy)
        del self._buffer[:self.pos]      # cheap: a bytearray only moves its start
        return Event(event), payload

    @property
    def unconsumed(self):
        """Bytes that ``next_event()`` has not consumed yet."""
        return bytes(self._buffer) if self._buffer is not None else EMPTY

    @property
    def idle(self):
        """True between two requests, with nothing of the next one parsed."""
        return self.between_requests()

    cdef bint between_requests(self) noexcept:
        return self.state == START and self.scanned == 0

    # -- the machine ----------------------------------------------------------------------------------------------

    cdef int next(self, const unsigned char* p, Py_ssize_t n) except -1:
        """One event from ``p[self.pos:n]``; ``pos`` moves over what was consumed. The caller sets it for each buffer."""
        if self.state <= FIELDS:
            return self._head(p, n)
        if self.state == BROKEN:
            return FAILED
        return self._body(p, n)

    cdef int _fail(self, int status, str reason) except -1:
        self.state = BROKEN
        self.status = status
        self.reason = reason
        return FAILED

    cdef Py_ssize_t _line(self, const unsigned char* p, Py_ssize_t n, Py_ssize_t limit, int status) except -3:
        """Length of the complete line at ``pos`` without CRLF; -1: not all there yet, -2: failed.

        A line ends in CRLF and nothing else: RFC 9112 2.2 lets a recipient take a bare LF, and that is one of the two
        ways in which parsers come to disagree. What is refused, and with which status, never depends on how the bytes
        were split: it is what a client that sends them one by one would be told.
        """
        cdef Py_ssize_t start = self.pos
        cdef const unsigned char* lf = <const unsigned char*>memchr(p + start + self.scanned, c"\n",
                                                                   n - start - self.scanned)
        # What there is of the line, its CR included: that one alone may lie beyond the limit.
        cdef Py_ssize_t length = n - start if lf == NULL else lf - (p + start)
        if length > limit and (length > limit + 1 or p[start + limit] != c"\r"):
            self._fail(status, "line too long")
            _bare_cr(self, p + start, limit)
            return -2
        if lf == NULL:
            if length - 1 > self.scanned:
                if memchr(p + start + self.scanned, c"\r", length - 1 - self.scanned) != NULL:
                    self._fail(400, "bare CR in a line")
                    return -2
                self.scanned = length - 1     # the last byte may be the CR: look at it again
            return -1
        self.scanned = 0
        if length == 0 or lf[-1] != c"\r":
            self._fail(400, "line ends in a bare LF")
            _bare_cr(self, p + start, length)
            return -2
        return length - 1

    cdef int _head(self, const unsigned char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t length, at
        if self.state == START:
            self.named = False
            while True:
                if self.pos >= n:
                    return NEED_DATA
                # A TLS ClientHello (0x16) has no line to wait for: the first byte tells.
                if not TOKEN[p[self.pos]] and p[self.pos] != c"\r":
                    return self._fail(400, "line ends in a bare LF" if p[self.pos] == c"\n" else
                                      "not an HTTP request (a TLS handshake?)" if p[self.pos] == 0x16 else
                                      "invalid method")
                length = self._line(p, n, self.limit_request_line, 414)
                if length < 0:
                    return NEED_DATA if length == -1 else FAILED
                at = self.pos
                self.pos += length + 2
                if length > 0:
                    break
                self.blank_lines += 1
                if self.blank_lines > MAX_BLANK_LINES:
                    return self._fail(400, "too many empty lines before the request line")
            self.blank_lines = 0
            if self._request_line(p + at, length) == FAILED:
                return _bare_cr(self, p + at, length)
            self.state = FIELDS
            self.named = True
        while True:
            length = self._line(p, n, self.limit_header_bytes - self.field_bytes, 431)
            if length < 0:
                return NEED_DATA if length == -1 else FAILED
            at = self.pos
            self.pos += length + 2
            if length == 0:
                return self._head_complete()
            if self._field(p + at, length, False) == FAILED:
                return _bare_cr(self, p + at, length)

    cdef int _request_line(self, const unsigned char* p, Py_ssize_t n) except -1:
        """method SP request-target SP HTTP-version (RFC 9112 3), each separator exactly one space."""
        cdef Py_ssize_t i = 0, j
        cdef bytes token
        while i < n and TOKEN[p[i]]:
            i += 1
        if i == 0 or i >= n or p[i] != c" ":
            return self._fail(400, "invalid method")
        j = n - 9                             # SP HTTP/d.d
        if j <= i or p[j] != c" " or memcmp(p + j + 1, b"HTTP/", 5) != 0 or p[j + 7] != c"." or not (
            c"0" <= p[j + 6] <= c"9" and c"0" <= p[j + 8] <= c"9"
        ):
            return self._fail(400, "invalid request line")
        if p[j + 6] != c"1" or p[j + 8] > c"1":
            return self._fail(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        self.minor = p[j + 8] - c"0"
        # one request's worth of state
        self.headers = []
        self.accept = None
        self.fields = 0
        self.field_bytes = 0
        self.content_length = -1
        self.hosts = self.codings = self.chunked_at = 0
        self.chunked = self.expect_continue = self.upgrade_websocket = self.has_body = False
        self.connection_close = self.connection_keep_alive = False
        self.unknown_expectation = self.bad_coding = False
        self.authority = None
        self.received = self.remaining = 0
        if i == 3 and memcmp(p, b"GET", 3) == 0:
            self.method = "GET"
        else:
            token = PyBytes_FromStringAndSize(<const char*>p, i)
            self.method = METHODS.get(token)
            if self.method is None:
                self.method = token.decode("ascii").upper()   # ASGI HTTP scope: "method" is uppercased
                if token == b"CONNECT":
                    return self._fail(501, "CONNECT is not supported")
                if self.method == "CONNECT" or self.method.encode("ascii") in METHODS:
                    # Methods are case-sensitive (RFC 9110 9.1). Whoever sits in front of us takes "head" for some
                    # unknown method, whose answer has a body, and would read the next answer as that.
                    return self._fail(400, "method is not in upper case")
        return self._target(p + i + 1, j - i - 1, self.method is OPTIONS)

    cdef int _target(self, const unsigned char* p, Py_ssize_t n, bint options) except -1:
        """origin-form, absolute-form or asterisk-form (RFC 9112 3.2); authority-form belongs to CONNECT alone."""
        cdef Py_ssize_t at, end
        if n == 0 or lastcall_bad_target(p, n):
            return self._fail(400, "invalid character in the request target")
        if p[0] == c"/":
            return self._split_target(p, n)
        if n == 1 and p[0] == c"*":
            if not options:
                return self._fail(400, "the target * is for OPTIONS only")
            self.path, self.raw_path, self.query_string = "*", b"*", EMPTY
            return 0
        # absolute-form: http[s]://authority[/path][?query]
        if n > 7 and _equals(p, 4, "http", 4) and memcmp(p + 4, b"://", 3) == 0:
            at = 7
        elif n > 8 and _equals(p, 5, "https", 5) and memcmp(p + 5, b"://", 3) == 0:
            at = 8
        else:
            return self._fail(400, "invalid request target")
        end = at
        while end < n and p[end] != c"/" and p[end] != c"?":
            end += 1
        # No userinfo: RFC 9110 4.2.4 tells recipients to treat it as an error. "@" is no reg-name character.
        if end == at or p[at] == c":" or not _valid_host(p + at, end - at):
            return self._fail(400, "invalid authority in the request target")
        self.authority = PyBytes_FromStringAndSize(<const char*>p + at, end - at)
        if end == n:
            self.path, self.raw_path, self.query_string = SLASH, SLASH_BYTES, EMPTY
            return 0
        if p[end] == c"?":
            self.path, self.raw_path = SLASH, SLASH_BYTES
            self.query_string = PyBytes_FromStringAndSize(<const char*>p + end + 1, n - end - 1)
            return 0
        return self._split_target(p + end, n - end)

    cdef int _split_target(self, const unsigned char* p, Py_ssize_t n) except -1:
        cdef const unsigned char* mark = <const unsigned char*>memchr(p, c"?", n)
        if mark == NULL:
            self.query_string = EMPTY
        else:
            self.query_string = PyBytes_FromStringAndSize(<const char*>mark + 1, n - (mark - p) - 1)
            n = mark - p
        if n == 1:
            self.path, self.raw_path = SLASH, SLASH_BYTES
        else:
            self.raw_path = PyBytes_FromStringAndSize(<const char*>p, n)
            self.path = _decode_path(p, n)
        return 0

    cdef int _field(self, const unsigned char* p, Py_ssize_t n, bint trailer) except -1:
        """field-name ":" OWS field-value OWS (RFC 9112 5). Trailer fields are checked alike, and dropped."""
        cdef unsigned char[NAME_BUFFER] lowered
        cdef Py_ssize_t i = 0
        cdef unsigned int h
        cdef unsigned char c
        cdef int which = UNKNOWN
        cdef bytes name, value
        cdef tuple pair
        cdef int kept
        cdef uint64_t seen = 0
        cdef const unsigned char* line = p
        cdef Py_ssize_t length = n
        self.fields += 1
        if self.fields > self.limit_headers:
            return self._fail(431, "too many header fields")
        self.field_bytes += n + 2
        if self.field_bytes > self.limit_header_bytes:
            return self._fail(431, "header fields too large")
        if not trailer:
            seen = fingerprint(p, n)
            pair = recall(seen, p, n)
            if pair is not None:
                if <object>PyTuple_GET_ITEM(pair, 0) is HOST_NAME:
                    self.hosts += 1
                    if self.hosts > 1:
                        return self._fail(400, "more than one Host")
                elif <object>PyTuple_GET_ITEM(pair, 0) is ACCEPT_NAME:
                    self._accept(<bytes>PyTuple_GET_ITEM(pair, 1))
                self.headers.append(pair)
                return 0
        while i < n:
            c = TOKEN[p[i]]
            if c == 0:
                break
            if i < NAME_BUFFER:
                lowered[i] = c
            i += 1
        if i == 0 or i >= n or p[i] != c":":
            if p[0] == c" " or p[0] == c"\t":
                return self._fail(400, "obsolete line folding")           # RFC 9112 5.2
            if 0 < i < n and (p[i] == c" " or p[i] == c"\t"):
                return self._fail(400, "space before the colon of a header field")    # RFC 9112 5.1
            return self._fail(400, "invalid header field name")
        if not trailer:
            if i <= NAME_BUFFER:
                h = _hash(lowered, i)
                name = _field_name(lowered, i, h, &which)
            else:
                name = PyBytes_FromStringAndSize(<const char*>p, i).lower()
        p += i + 1
        n -= i + 1
        while n and (p[0] == c" " or p[0] == c"\t"):
            p += 1
            n -= 1
        while n and (p[n - 1] == c" " or p[n - 1] == c"\t"):
            n -= 1
        if lastcall_has_ctl(p, n):
            return self._fail(400, "control character in a header field")
        if trailer:
            return 0
        if HOST <= which <= UPGRADE:
            kept = self._special(which, p, n)
            if kept == FAILED:
                return FAILED
            if kept == NEED_DATA:         # a repeated Content-Length of the same value: one is enough
                return 0
        value = PyBytes_FromStringAndSize(<const char*>p, n)
        pair = PyTuple_New(2)
        Py_INCREF(name)
        PyTuple_SET_ITEM(pair, 0, name)
        Py_INCREF(value)
        PyTuple_SET_ITEM(pair, 1, value)
        self.headers.append(pair)
        if name is ACCEPT_NAME:
            self._accept(value)
        if which == ORDINARY or which == HOST:
            remember(seen, line, length, pair)
        return 0

    cdef int _special(self, int which, const unsigned char* p, Py_ssize_t n) except -1:
        """The fields that frame the message. NEED_DATA: leave this line out; HEAD: keep it; FAILED."""
        cdef long long length = 0
        cdef Py_ssize_t i
        if which == HOST:
            self.hosts += 1
            if self.hosts > 1:
                return self._fail(400, "more than one Host")               # RFC 9112 3.2
            if not _valid_host(p, n):
                return self._fail(400, "invalid Host")
        elif which == CONTENT_LENGTH:
            # RFC 9110 8.6: 1*DIGIT. 18 digits cannot overflow; no message is larger than 10**18 bytes.
            if n == 0 or n > 18:
                return self._fail(400, "invalid Content-Length")
            for i in range(n):
                if not c"0" <= p[i] <= c"9":
                    return self._fail(400, "invalid Content-Length")
                length = length * 10 + (p[i] - c"0")
            if self.content_length >= 0:
                if self.content_length != length:
                    return self._fail(400, "differing Content-Length fields")
                return NEED_DATA
            self.content_length = length
        elif which == TRANSFER_ENCODING:
            return self._transfer_encoding(p, n)
        elif which == CONNECTION:
            return self._connection(p, n)
        elif which == EXPECT:
            if _equals(p, n, "100-continue", 12):
                self.expect_continue = True
            else:
                self.unknown_expectation = True
        elif which == UPGRADE:
            self._upgrade(p, n)
        return HEAD

    cdef int _accept(self, bytes value) except -1:
        """Keep what may name ``text/event-stream``; several fields are one list (RFC 9110 5.3)."""
        if PyBytes_GET_SIZE(value) >= EVENT_STREAM:
            self.accept = value if self.accept is None else self.accept + b", " + value
        return 0

    cdef int _transfer_encoding(self, const unsigned char* p, Py_ssize_t n) except -1:
        """Collect coding names over all lines; ``_head_complete`` judges them (RFC 9112 6.1)."""
        cdef Py_ssize_t i = 0, start, end
        while True:
            while i < n and (p[i] == c" " or p[i] == c"\t"):
                i += 1
            start = i
            while i < n and p[i] != c",":
                i += 1
            end = i
            while end > start and (p[end - 1] == c" " or p[end - 1] == c"\t"):
                end -= 1
            self.codings += 1
            if self.codings > 16 or end == start:
                self.bad_coding = True       # an empty element is where two list parsers part
                return HEAD
            if _equals(p + start, end - start, "chunked", 7):
                if self.chunked_at:
                    self.bad_coding = True
                self.chunked_at = self.codings
            i += 1
            if i > n:
                return HEAD

    cdef int _connection(self, const unsigned char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 0, start, end
        while i <= n:
            while i < n and (p[i] == c" " or p[i] == c"\t"):
                i += 1
            start = i
            while i < n and p[i] != c",":
                i += 1
            end = i
            while end > start and (p[end - 1] == c" " or p[end - 1] == c"\t"):
                end -= 1
            if _equals(p + start, end - start, "close", 5):
                self.connection_close = True
            elif _equals(p + start, end - start, "keep-alive", 10):
                self.connection_keep_alive = True
            i += 1
        return HEAD

    cdef void _upgrade(self, const unsigned char* p, Py_ssize_t n) noexcept:
        """RFC 9110 7.8: a list, in the client's order of preference; several lines are one list."""
        cdef Py_ssize_t i = 0, start, end
        while i <= n:
            while i < n and (p[i] == c" " or p[i] == c"\t"):
                i += 1
            start = i
            while i < n and p[i] != c",":
                i += 1
            end = i
            while end > start and (p[end - 1] == c" " or p[end - 1] == c"\t"):
                end -= 1
            if _equals(p + start, end - start, "websocket", 9):
                self.upgrade_websocket = True
            i += 1

    cdef int _head_complete(self) except -1:
        cdef Py_ssize_t i
        cdef tuple pair
        if self.authority is not None:
            # RFC 9112 3.2.2: an absolute-form target wins over Host, and the application must see the same host.
            for i in range(len(self.headers)):
                pair = <tuple>self.headers[i]
                if pair[0] == b"host":
                    self.headers[i] = (b"host", self.authority)
                    break
            else:
                if self.minor == 0:
                    self.headers.insert(0, (b"host", self.authority))
        if self.hosts == 0 and self.minor == 1:
            return self._fail(400, "missing Host")
        if self.codings:
            if self.minor == 0:
                return self._fail(400, "Transfer-Encoding in an HTTP/1.0 request")
            if self.content_length >= 0:
                return self._fail(400, "both Transfer-Encoding and Content-Length")
            if self.bad_coding or self.chunked_at != self.codings:
                return self._fail(400, "invalid Transfer-Encoding")
            if self.codings > 1:
                return self._fail(501, "unknown transfer coding")
            self.chunked = True
        if self.unknown_expectation and self.minor == 1:
            return self._fail(417, "unknown expectation")
        if self.minor == 0:
            self.expect_continue = False                 # RFC 9110 10.1.1
            self.keep_alive = self.connection_keep_alive and not self.connection_close
        else:
            self.keep_alive = not self.connection_close
        if self.limit_body >= 0 and self.content_length > self.limit_body:
            return self._fail(413, "request body too large")
        self.has_body = self.chunked or self.content_length > 0
        if not self.has_body:
            self.expect_continue = False
            self.state = START
        elif self.chunked:
            self.state = CHUNK_SIZE
            self.field_bytes = 0
        else:
            self.remaining = self.content_length
            self.state = LENGTH_BODY
        return HEAD

    # -- the body -------------------------------------------------------------------------------------------------

    cdef int _chunk_size(self, const unsigned char* p, Py_ssize_t n) except -1:
        """chunk-size [ chunk-ext ] (RFC 9112 7.1): hex digits, then nothing or extensions, which are checked and
        dropped."""
        cdef Py_ssize_t i = 0
        cdef int digit
        cdef long long size = 0
        while i < n:
            digit = _hex(p[i])
            if digit < 0:
                break
            if size > (<long long>1 << 58):
                return self._fail(400, "chunk size too large")
            size = size * 16 + digit
            i += 1
        if i == 0:
            return self._fail(400, "invalid chunk size")
        if i < n:
            self.field_bytes += n - i
            if self.field_bytes > self.limit_header_bytes:
                return self._fail(431, "too many chunk extensions")
            if lastcall_has_ctl(p + i, n - i):
                return self._fail(400, "control character in a chunk extension")
            if not _valid_extensions(p + i, n - i):
                return self._fail(400, "invalid chunk extension")
        self.received += size
        if self.limit_body >= 0 and self.received > self.limit_body:
            return self._fail(413, "request body too large")
        self.remaining = size
        return 0

    cdef int _body(self, const unsigned char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t length, at, available
        while True:
            if self.state == LENGTH_BODY or self.state == CHUNK_DATA:
                available = n - self.pos
                if self.remaining == 0:
                    if self.state == LENGTH_BODY:
                        self.state = START
                        return END
                    self.state = CHUNK_END
                    continue
                if available == 0:
                    return NEED_DATA
                if available > self.remaining:
                    available = <Py_ssize_t>self.remaining
                self.data_at = self.pos
                self.data_len = available
                self.pos += available
                self.remaining -= available
                return DATA
            if self.state == CHUNK_END:
                if n - self.pos >= 1 and p[self.pos] != c"\r" or n - self.pos >= 2 and p[self.pos + 1] != c"\n":
                    return self._fail(400, "chunk data is longer than its size")
                if n - self.pos < 2:
                    return NEED_DATA
                self.pos += 2
                self.state = CHUNK_SIZE
            if self.state == CHUNK_SIZE:
                length = self._line(p, n, MAX_CHUNK_LINE, 400)
                if length < 0:
                    return NEED_DATA if length == -1 else FAILED
                at = self.pos
                self.pos += length + 2
                if self._chunk_size(p + at, length) == FAILED:
                    return _bare_cr(self, p + at, length)
                if self.remaining:
                    self.state = CHUNK_DATA
                    continue
                self.state = TRAILERS
                self.field_bytes = 0
                self.fields = 0
            # TRAILERS: the grammar of header fields, bounded by the same limits, discarded (RFC 9110 6.5.1)
            length = self._line(p, n, self.limit_header_bytes - self.field_bytes, 431)
            if length < 0:
                return NEED_DATA if length == -1 else FAILED
            at = self.pos
            self.pos += length + 2
            if length == 0:
                self.state = START
                return END
            if self._field(p + at, length, True) == FAILED:
                return _bare_cr(self, p + at, length)


cdef int _bare_cr(RequestParser parser, const unsigned char* p, Py_ssize_t n) except -1:
    """A line was refused. If it has a bare CR, that is why: it would have been refused there, had it come in pieces."""
    if memchr(p, c"\r", n) != NULL:
        parser._fail(400, "bare CR in a line")
    return FAILED

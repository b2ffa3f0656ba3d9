# cython: language_level=3
"""A WebSocket over an HTTP/1.1 connection: the handshake (RFC 6455 4.2), and frames both ways after it.

``WebSocketUpgrades`` is what the HTTP/1 connection asks when a client wants one. During the handshake the exchange of that
connection has the output, so the server's refusals and the application's own answer are written as every response is.
When it is accepted the socket changes hands (``detach``), and a ``WebSocketConnection`` reads and writes frames.

How it ends. Whoever closes says Close once, and never sends a message behind it. After ours reading goes on, whatever the
queue's limit says, and data frames are dropped. At the peer's Close a FIN is sent at once; without one a FIN comes after
a second, and the connection is closed at the peer's FIN, or a second later. Some clients tell their applications of a
Close only when TCP ends, and some answer none, so no FIN waits for more than that.

Life. Every ``--ws-ping-interval`` a Ping is sent, and any byte that comes within ``--ws-ping-timeout`` is an answer to it. No
time counts in which we do not read: while the application's queue is full, while the client does not take what was
sent, while our own loop stood still (what has arrived meanwhile is read first).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.math cimport INFINITY
from libc.string cimport memcpy

import base64
import binascii
import hashlib
import logging

from lastcall.asgi.cycle cimport HIGH_WATER
from lastcall.asgi.websocket cimport WebSocketCycle
from lastcall.base.errors import LocalProtocolError
from lastcall.connection.deadlines cimport LINGER, WS_PING, WS_PONG, unset
from lastcall.connection.http1 cimport HTTP1Connection, HTTP1Cycle
from lastcall.connection.service cimport HTTPService, Upgrades
from lastcall.connection.stream cimport CLOSED, FINISHING, Connection, Stream
from lastcall.drain.state cimport DRAINING
from lastcall.notice.notice cimport notice_of
from lastcall.wire.buffer cimport ByteBuffer, reserved
from lastcall.wire.deflate import WORTH_IT, Deflater, Inflater, agree
from lastcall.wire.head cimport ResponseHead, check_head
from lastcall.wire.response cimport fields_size, put_fields
from lastcall.wire.websocket cimport (
    BINARY, CLOSE, FAILED, FIN, FRAME_HEAD, GOT_CLOSE, GOT_PING, MESSAGE, MORE, PING, PONG, RSV1, TEXT, FrameParser,
    close_payload, put_head,
)

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object o, Py_ssize_t* size) except NULL

cdef object logger = logging.getLogger("lastcall.error")

cdef double STALLED = 0.5            # seconds: a deadline that is heard of so late says nothing of the client

cdef bytes GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"      # RFC 6455 1.3
cdef bytes SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
# The server's own affair: an application that sets one of these would break the handshake.
cdef frozenset RESERVED = frozenset((
    b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol",
    b"sec-websocket-version", b"content-length", b"transfer-encoding",
))
cdef tuple VERSION = (b"sec-websocket-version", b"13")
cdef frozenset TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

TRANSITIONS = {
    "OPEN": ("CLOSING", "FINISHING", "CLOSED"),
    "CLOSING": ("FINISHING", "CLOSED"),
    "FINISHING": ("CLOSED",),
    "CLOSED": (),
}
cdef dict NUMBERS = {"OPEN": OPEN, "CLOSING": CLOSING, "FINISHING": FINISHING, "CLOSED": CLOSED}
cdef unsigned int[16] MAY_FOLLOW         # the same, as sets of bits

for _state, _followers in TRANSITIONS.items():
    MAY_FOLLOW[NUMBERS[_state]] = sum(1 << NUMBERS[_follower] for _follower in _followers)


cdef list words(bytes value):
    """A comma-separated list of tokens, without empty ones (RFC 9110 5.6.1)."""
    return [word.strip() for word in value.decode("latin-1").split(",") if word.strip()]


@cython.final
cdef class WebSocketUpgrades(Upgrades):
    """Answers the handshakes of one worker. ``options``: ``base.options.WebSocketOptions``."""

    def __init__(self, options):
        self.options = options
        self.max_queue = options.max_queue
        self.max_queue_size = options.max_queue_size
        self.worth_it = WORTH_IT

    cdef int begin(self, object connection, object exchange) except -1:
        """A client asks for a WebSocket: refuse it, or start the application."""
        cdef HTTP1Connection http = <HTTP1Connection>connection
        cdef HTTP1Cycle handshake = <HTTP1Cycle>exchange
        cdef HTTPService service = http.service
        cdef HTTP1WebSocketCycle cycle
        cdef bytes key = None, version = None, name, value
        cdef list offers = [], subprotocols = []
        cdef int keys = 0
        cdef bint upgrade = False
        cdef dict scope
        handshake.called = handshake.ended = True          # the exchange has no task of its own
        handshake.body_complete = True
        handshake.keep_alive = False                       # what is behind a refused handshake may be no HTTP
        for name, value in http.parser.headers:
            if name == b"sec-websocket-key":
                key = value
                keys += 1
            elif name == b"sec-websocket-version":
                version = value
            elif name == b"sec-websocket-protocol":
                subprotocols += words(value)
            elif name == b"sec-websocket-extensions":
                offers.append(value)
            elif name == b"connection":
                upgrade = upgrade or any(word.lower() == "upgrade" for word in words(value))
        if version != b"13" and upgrade:                   # RFC 6455 4.4
            handshake.head = check_head(426, [VERSION, (b"upgrade", b"websocket"), (b"content-length", b"0")],
                                        service.default_headers)
            return handshake.write_body(NULL, 0, False)
        if not upgrade or keys != 1 or not is_key(key) or not handshake.request_read:
            return service.answer(handshake, 400, b"not the handshake of a WebSocket")
        if service.drain.phase >= DRAINING:
            return service.answer(handshake, 503, b"")
        cycle = HTTP1WebSocketCycle.__new__(HTTP1WebSocketCycle)
        cycle.runtime = service
        cycle.upgrades = self
        cycle.exchange = handshake
        cycle.key = key
        cycle.offers = offers
        cycle.subprotocols = subprotocols
        cycle.raw_path = handshake.raw_path
        cycle.query_string = handshake.query_string
        cycle.since = handshake.since
        cycle.flush_count = &http.scheduler.flushes
        cycle.close_reason = ""
        handshake.upgrade = cycle
        if http.client is None and http.server is None:
            http.client = http.stream.client_address()
            http.server = http.stream.server_address()
        scope = http.scopes.make(
            "1.1", handshake.method, http.parser.path, handshake.raw_path, handshake.query_string,
            http.parser.headers, http.client, http.server, notice_of(cycle),
        )
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = subprotocols
        scope["extensions"]["websocket.http.response"] = {}
        del scope["method"]
        cycle.scope = scope
        if self.options.handshake_timeout < INFINITY:
            cycle.handshake_timer = service.loop.call_later(self.options.handshake_timeout, cycle.handshake_is_late)
        return cycle.start()


cdef bint is_key(bytes key) except -1:
    """RFC 6455 4.2.1: 16 bytes in base64."""
    try:
        return key is not None and len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


@cython.final
cdef class HTTP1WebSocketCycle(WebSocketCycle):
    """The one run of the application for a WebSocket over HTTP/1.1."""

    # -- the handshake --------------------------------------------------------------------------------------------

    cdef int accept_handshake(self, object subprotocol, object headers) except -1:
        cdef HTTP1Connection http = self.exchange.connection
        cdef HTTPService service = http.service
        cdef WebSocketConnection socket
        cdef ResponseHead head
        cdef ByteBuffer out = http.stream.out
        cdef bytes lines
        cdef char* at
        cdef object agreement = None
        cdef object inflater = None
        if subprotocol is not None:
            if not isinstance(subprotocol, str) or not subprotocol or not TOKEN.issuperset(subprotocol):
                raise LocalProtocolError(f"websocket.accept: {subprotocol!r:.80} is no name of a subprotocol")
            if subprotocol not in self.subprotocols:       # RFC 6455 4.2.2: one of those that were offered
                raise LocalProtocolError(f"websocket.accept: the client did not offer the subprotocol {subprotocol!r:.80}")
        head = check_head(200, headers, service.default_headers)
        for name, _ in head.pairs[:head.asked]:
            if name.lower() in RESERVED:
                raise LocalProtocolError(f"websocket.accept: {name!r} is the server's affair")
        lines = SWITCHING + b"sec-websocket-accept: " + base64.b64encode(
            hashlib.sha1(self.key + GUID, usedforsecurity=False).digest()
        ) + b"\r\n"
        if subprotocol is not None:
            lines += b"sec-websocket-protocol: " + subprotocol.encode() + b"\r\n"
        if self.upgrades.options.per_message_deflate and self.offers:
            try:
                agreement = agree(self.offers)
            except ValueError:
                agreement = None
        if agreement is not None:
            lines += b"sec-websocket-extensions: " + agreement.header + b"\r\n"
            inflater = Inflater(agreement)
        http.scheduler.refresh_common()
        if not (head.has_date or head.has_server):
            lines += http.scheduler._common
        else:
            lines += (b"" if head.has_date else http.scheduler.date_line) + (
                b"" if head.has_server else http.scheduler.server_line)
        at = out.reserve(len(lines) + fields_size(head) + 2)
        memcpy(at, PyBytes_AS_STRING(lines), PyBytes_GET_SIZE(lines))
        at = put_fields(at + PyBytes_GET_SIZE(lines), head)
        at[0] = c"\r"
        at[1] = c"\n"
        out.end = at + 2 - out.data
        http.scheduler.mark_dirty(http.stream)
        service.record_upgrade(self.exchange, http.client)
        socket = WebSocketConnection.__new__(WebSocketConnection)
        socket.scheduler = http.scheduler
        socket.stream = http.stream
        socket.upgrades = self.upgrades
        socket.cycle = self
        socket.parser = FrameParser(self.upgrades.options.max_size, inflater)
        if agreement is not None:
            socket.deflater = Deflater(agreement)
        self.connection = socket
        self.exchange.upgrade = None
        self.exchange = None
        self.key = None
        self.offers = self.subprotocols = None
        return http.become_websocket(socket)

    cdef int refuse_handshake(self, int status) except -1:
        cdef HTTP1Cycle exchange = self.exchange
        if exchange is None or exchange.connection is None or exchange.connection.cycle is not exchange:
            return 0
        exchange.upgrade = self.exchange = None
        return exchange.connection.service.answer(exchange, status, b"")

    cdef int begin_denial(self, object status, object headers) except -1:
        self.exchange.head = check_head(status, headers, self.exchange.runtime.default_headers)
        return 0

    cdef int deny(self, bytes body, bint more) except -1:
        cdef HTTP1Cycle exchange = self.exchange
        if not more:
            exchange.upgrade = self.exchange = None
        return exchange.write_body(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), more)

    # -- the socket -----------------------------------------------------------------------------------------------

    cdef int write_message(self, object data) except -1:
        if self.connection is not None:
            return self.connection.send_message(data)
        return 0

    cdef int close_socket(self, int code, str reason) except -1:
        if self.connection is not None:
            return self.connection.say_close(code, reason)
        return 0

    cdef int taken(self) except -1:
        if self.connection is not None and self.connection.held and not self.connection.is_full():
            return self.connection.release()
        return 0

    cdef Py_ssize_t unsent(self) noexcept:
        if self.connection is not None:
            return self.connection.stream.unsent()
        return self.exchange.unsent() if self.exchange is not None else 0

    cdef int flush(self) except -1:
        if self.connection is not None:
            return self.connection.stream.flush()
        return self.exchange.flush() if self.exchange is not None else 0

    cdef int give_up(self) except -1:
        if self.connection is not None:
            self.connection.abort()
        elif self.exchange is not None:
            self.exchange.abort()
        return 0

    cdef object client_name(self):
        if self.connection is not None and self.connection.state != CLOSED:
            return self.connection.peer()
        return ""

    cdef int task_ended(self) except -1:
        if self.connection is not None:
            self.connection.cycle = None
            self.connection = None
        if self.exchange is not None:
            self.exchange.upgrade = self.exchange = None
        return 0


@cython.final
cdef class WebSocketConnection(Connection):
    """See the module's docstring. A handshake makes these."""

    def __init__(self):
        raise TypeError("a handshake makes these")

    cdef int become(self, int state) except -1:
        if not MAY_FOLLOW[self.state] >> state & 1:
            raise RuntimeError(f"a WebSocket in state {self.state} cannot enter state {state}")
        self.state = state
        return 0

    # -- called by net --------------------------------------------------------------------------------------------

    cdef int opened(self) except -1:
        """The socket has changed hands. The application may have closed it already."""
        if self.state == OPEN:
            self.listen()
        return 0

    cdef int on_data(self, const unsigned char* p, Py_ssize_t n) except -1:
        if self.state >= FINISHING:
            return 0
        if self.pinged or self.read_node.previous == NULL:
            self.pinged = False
            if self.state == OPEN:
                self.listen()
        if self.held:
            return self.hold(p, n)         # it was on its way when reading was paused
        return self.advance(p, n)

    cdef int on_eof(self) except -1:
        Connection.on_eof(self)
        if self.state < FINISHING and not self.held:
            self.tell(1006, "")
            return self.finish()
        return 0

    cdef int on_lost(self) except -1:
        return self.close_now()

    cdef int on_drained(self) except -1:
        cdef bytes payload = self.late_pong
        if payload is not None:
            self.late_pong = None
            if self.state == OPEN:
                self.answer_ping(payload)
        if self.cycle is not None:
            self.cycle.wake_sender()
        return 0

    # -- reading --------------------------------------------------------------------------------------------------

    cdef int advance(self, const unsigned char* p, Py_ssize_t n) except -1:
        cdef FrameParser parser = self.parser
        cdef int event
        parser.pos = 0
        while self.state < FINISHING:
            if self.state == OPEN and self.is_full():
                if parser.pos < n or not self.held:
                    self.hold(p + parser.pos, n - parser.pos)
                return 0
            event = parser.next(p, n)
            if event == MESSAGE:
                if self.cycle is not None:
                    payload = parser.payload
                    parser.payload = None
                    self.cycle.feed(payload)
            elif event == MORE:
                return 0
            elif event == GOT_PING:
                if self.state == OPEN:
                    self.answer_ping(parser.payload)
            elif event == GOT_CLOSE:
                return self.close_from_peer()
            elif event == FAILED:
                return self.fail(parser.code, parser.reason)
        return 0

    cdef bint is_full(self) noexcept:
        """Whether the application has enough to read: ``--ws-max-queue`` messages, or their bytes."""
        cdef HTTP1WebSocketCycle cycle = self.cycle
        return cycle is not None and cycle.waiting > 0 and (
            cycle.waiting >= self.upgrades.max_queue or cycle.waiting_size >= self.upgrades.max_queue_size
        )

    cdef int hold(self, const unsigned char* p, Py_ssize_t n) except -1:
        """Read no more until the application has caught up. No time of the client's counts meanwhile."""
        self.held = True
        unset(&self.read_node)
        if n:
            if self.pending is None:
                self.pending = ByteBuffer.__new__(ByteBuffer)
            self.pending.append(<const char*>p, n)
        return 0 if self.eof else self.stream.set_reading(False)

    cdef int release(self) except -1:
        """The application has caught up, or nothing waits for it any more."""
        cdef ByteBuffer pending = self.pending
        self.held = False
        self.pending = None
        if pending is not None:
            self.advance(<const unsigned char*>pending.data + pending.start, pending.end - pending.start)
        if self.held or self.state >= FINISHING:
            return 0
        if self.eof:
            self.tell(1006, "")
            return self.finish()
        if self.state == OPEN:
            if self.pinged:                # its answer may be among what could not be read: ask again
                self.pinged = False
                self.expired(WS_PING)
                if not self.scheduler.in_turn:
                    self.scheduler.arm()
            else:
                self.listen()
        return self.stream.set_reading(True)

    # -- writing --------------------------------------------------------------------------------------------------

    cdef int put(self, int first, const char* data, Py_ssize_t n) except -1:
        """Queue a frame."""
        cdef ByteBuffer out = self.stream.out
        cdef char* start = reserved(out, n + FRAME_HEAD)
        cdef char* at = put_head(start, first, n)
        if n:
            memcpy(at, data, n)
        out.end += at - start + n
        if not self.stream.dirty:
            self.scheduler.mark_dirty(self.stream)
        return 0

    cdef int answer_ping(self, bytes payload) except -1:
        """A client that asks and asks, and reads no answer, gets one: the last (RFC 6455 5.5.3 allows that)."""
        if self.stream.unsent() > HIGH_WATER:
            self.late_pong = payload
            return 0
        return self.put(FIN | PONG, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))

    cdef int send_message(self, object data) except -1:
        cdef Py_ssize_t n
        cdef const char* at
        cdef int first = FIN | BINARY
        cdef bytes packed
        if self.state != OPEN:
            return 0
        if PyBytes_CheckExact(data):
            at, n = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        else:
            first = FIN | TEXT
            at = PyUnicode_AsUTF8AndSize(data, &n)
        self.cycle.bytes_sent += n
        if self.deflater is not None and n >= self.upgrades.worth_it:
            packed = self.deflater.deflate(at[:n])
            return self.put(first | RSV1, PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed))
        return self.put(first, at, n)

    # -- ends -----------------------------------------------------------------------------------------------------

    cdef int say_close(self, int code, str reason) except -1:
        """Our Close is first: read on, but only for the peer's."""
        cdef bytes payload
        if self.state == OPEN and self.pending is not None:
            self.take_pending()
        if self.state != OPEN:
            return 0
        payload = close_payload(code, reason)
        self.put(FIN | CLOSE, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        self.become(CLOSING)
        self.parser.discard()
        self.pinged = False
        self.scheduler.deadlines.set(&self.read_node, self, LINGER, self.scheduler.time())
        if not self.scheduler.in_turn:
            self.scheduler.arm()
        if self.held:
            return self.release()
        return 0

    cdef int take_pending(self) except -1:
        """What had come before our Close is the application's, as far as its queue's size allows."""
        cdef ByteBuffer pending = self.pending
        cdef FrameParser parser = self.parser
        cdef int event = MESSAGE
        cdef const unsigned char* p = <const unsigned char*>pending.data + pending.start
        cdef Py_ssize_t n = pending.end - pending.start
        self.pending = None
        parser.pos = 0
        while event != MORE and (self.cycle is None or self.cycle.waiting_size < self.upgrades.max_queue_size):
            event = parser.next(p, n)
            if event == MESSAGE and self.cycle is not None:
                payload = parser.payload
                parser.payload = None
                self.cycle.feed(payload)
            elif event == GOT_CLOSE:
                return self.close_from_peer()
            elif event == FAILED:
                return self.fail(parser.code, parser.reason)
        return 0

    cdef int close_from_peer(self) except -1:
        """RFC 6455 5.5.1: answer with a Close, then end TCP, which is the server's part (7.1.1)."""
        cdef FrameParser parser = self.parser
        cdef bytes payload
        if self.state == OPEN:
            payload = close_payload(parser.code, "")
            self.put(FIN | CLOSE, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
            self.tell(parser.code, parser.reason)
        return self.finish()

    cdef int fail(self, int code, str reason) except -1:
        """RFC 6455 7.1.7: the peer broke the protocol, or is not there."""
        cdef bytes payload
        if self.state == OPEN:
            logger.info("%s, a WebSocket: %s (%d)", self.peer(), reason, code)
            payload = close_payload(code, reason)
            self.put(FIN | CLOSE, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
            self.tell(code, reason)
        return self.finish()

    cdef int tell(self, int code, str reason) except -1:
        """The application: it is over."""
        if self.cycle is not None:
            return self.cycle.lost(code, reason)
        return 0

    cdef int listen(self) except -1:
        """The next Ping is due in an interval from now."""
        self.scheduler.deadlines.set(&self.read_node, self, WS_PING, self.scheduler.time())
        return 0 if self.scheduler.in_turn else self.scheduler.arm()

    cdef int expired(self, int kind) except -1:
        cdef double late
        if kind == LINGER and self.state == CLOSING:
            if self.stream.unsent():       # our Close is not out yet: --timeout-write is for who does not read
                self.scheduler.deadlines.set(&self.read_node, self, LINGER, self.scheduler.time())
                return 0
            return self.finish()           # no Close came
        if kind == WS_PING:
            if self.state == OPEN:
                self.put(FIN | PING, NULL, 0)
                self.pinged = True
                self.scheduler.deadlines.set(&self.read_node, self, WS_PONG, self.scheduler.time())
            return 0
        if kind == WS_PONG:
            # What has come while our own loop was busy counts, and what the client cannot have got does not.
            late = self.scheduler.time() - self.read_node.at
            self.stream.read_now()
            if self.state != OPEN or not self.pinged or self.held:
                return 0
            if late > STALLED:             # so may its answer be, on its way through a machine that stood still
                return self.expired(WS_PING)
            if self.stream.unsent():
                self.scheduler.deadlines.set(&self.read_node, self, WS_PONG, self.scheduler.time())
                return 0
            return self.fail(1011, "no answer to a ping")
        return Connection.expired(self, kind)

    cdef int closed(self) except -1:
        self.tell(1006, "")
        self.cycle = None
        self.pending = None
        self.stream.out.clear()
        self.scheduler.keep(self)
        self.stream.connection = None
        return 0

# cython: language_level=3
# length: the connection and its exchange are one machine over shared state; two files would need each other's insides.
"""HTTP/1.1 over one byte stream: requests in, one ASGI cycle each, answers out, in order.

Theory of operation
-------------------
A connection is in one state (``TRANSITIONS`` says what may follow which):

    AWAIT_HEAD   no exchange: the next head is awaited, or waits in ``pending`` for its turn
    EXCHANGE     one exchange (``cycle``) owns the output; its request is being read, or its response written
    DISCARDING   the answer is out, and the rest of its request's body is read and dropped: at most 64 KiB, 1 s
    FINISHING    nothing more is served: flush, FIN, read until the client's FIN (``stream.Connection``); what still
                 comes of a request that has its answer is dropped, for up to 5 s
    CLOSED       closed, or handed to another protocol (``detach``)

At most one exchange owns the output at a time. Bytes behind its request wait in ``pending``: that is what pipelining
comes to, and above ``HIGH_WATER`` reading is paused. An exchange ends when its response is complete and its request is
read; a task that goes on after its response (background work) stays a running task, but not in the way.

How it unwinds. ``advance`` is the only loop that reads requests, and it is never entered twice. An application that is
started from it may complete its response at once: ``send`` -> ``write_body`` -> ``finished`` -> ``response_done``. That
last one only changes the state, and returns; when ``advance`` is on the stack, it goes on with the next request. When it
is not (a task that the loop resumed has completed the response), what waits in ``pending`` is given to the scheduler,
whose next turn calls ``run``, and that calls ``advance``. So no request is ever started inside another one's ``send``.

An application is started after what has already come of its body was fed to it, so a ``receive()`` rarely suspends.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport INFINITY
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import logging

from lastcall.asgi.cycle cimport HIGH_WATER, AppCycle
from lastcall.asgi.http cimport HTTPCycle
from lastcall.asgi.scope cimport HTTPScopes
from lastcall.connection.deadlines cimport AGE, BODY, DISCARD, HEADER, KEEP_ALIVE, LINGER, REQUEST, WRITE, unset
from lastcall.connection.scheduler cimport Scheduler
from lastcall.connection.service cimport HEALTH, REFUSE, HTTPService
from lastcall.connection.stream cimport CLOSED, FINISHING, Connection, Stream
from lastcall.drain.state cimport ANNOUNCED
from lastcall.notice.notice cimport notice_of
from lastcall.wire.buffer cimport ByteBuffer, reserved
from lastcall.wire.head cimport ResponseHead
from lastcall.wire.http1 cimport DATA, END, HEAD, HEAD_METHOD, NEED_DATA, RequestParser
from lastcall.wire.response cimport fields_size, put_fields, status_line

cdef extern from "string.h" nogil:
    void* memmem(const void* haystack, size_t length, const void* needle, size_t size)

cdef object logger = logging.getLogger("lastcall.error")

cdef enum:
    MAX_SERVED = 8               # pipelined requests that one connection may have answered before others get their turn
    DISCARD_LIMIT = 65536        # bytes of an unread body that are worth a kept-alive connection
    CHUNK_OVERHEAD = 24          # 16 hex digits and two CRLF, and some more
    STATES = 16

cdef const char* HEX = b"0123456789abcdef"
cdef bytes CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
cdef bytes LINE_CHUNKED = b"transfer-encoding: chunked\r\n"
cdef bytes LINE_CLOSE = b"connection: close\r\n"
cdef bytes LINE_KEEP_ALIVE = b"connection: keep-alive\r\n"

# From each state, those that may follow.
TRANSITIONS = {
    "AWAIT_HEAD": ("EXCHANGE", "FINISHING", "CLOSED"),
    "EXCHANGE": ("AWAIT_HEAD", "DISCARDING", "FINISHING", "CLOSED"),
    "DISCARDING": ("AWAIT_HEAD", "FINISHING", "CLOSED"),
    "FINISHING": ("CLOSED",),
    "CLOSED": (),
}
cdef dict NUMBERS = {
    "AWAIT_HEAD": AWAIT_HEAD, "EXCHANGE": EXCHANGE, "DISCARDING": DISCARDING, "FINISHING": FINISHING, "CLOSED": CLOSED,
}
cdef unsigned int[STATES] MAY_FOLLOW      # the same, as sets of bits

for _state, _followers in TRANSITIONS.items():
    MAY_FOLLOW[NUMBERS[_state]] = sum(1 << NUMBERS[_follower] for _follower in _followers)


cdef inline char* put(char* at, bytes text) noexcept:
    cdef Py_ssize_t n = PyBytes_GET_SIZE(text)
    memcpy(at, PyBytes_AS_STRING(text), n)
    return at + n


cdef inline int put_chunk_size(char* at, Py_ssize_t n) noexcept:
    """``n`` in hex, and CRLF; returns how many bytes that is. (snprintf costs as much as the rest of a chunk.)"""
    cdef int digits = 1
    cdef char* digit
    cdef size_t left = <size_t>n >> 4
    while left:
        digits += 1
        left >>= 4
    digit = at + digits
    left = <size_t>n
    while digit > at:
        digit -= 1
        digit[0] = HEX[left & 15]
        left >>= 4
    at[digits] = c"\r"
    at[digits + 1] = c"\n"
    return digits + 2


@cython.final
cdef class HTTP1Cycle(HTTPCycle):
    """One exchange of an HTTP/1 connection. ``connection`` is None once the exchange is over."""

    cdef int wants_input(self) except -1:
        cdef HTTP1Connection connection = self.connection
        if connection is None or connection.cycle is not self:
            return 0
        if self.expects_continue:
            # RFC 9110 10.1.1: only now is it known that the body is wanted.
            self.expects_continue = False
            if not self.started:
                connection.stream.out.append_bytes(CONTINUE)
                connection.scheduler.mark_dirty(connection.stream)
            connection.set_body_deadline()
        return 0

    cdef int body_taken(self, Py_ssize_t n) except -1:
        cdef HTTP1Connection connection = self.connection
        if connection is not None and connection.cycle is self and not connection.stream.reading and (
            not self.request_read
        ):
            connection.resume()
            connection.set_body_deadline()
        return 0

    cdef bint half_closed(self) noexcept:
        return self.connection is not None and self.connection.cycle is self and self.connection.eof

    cdef bint client_takes(self) noexcept:
        return self.connection is not None and self.connection.stream.advanced()

    cdef int give_up(self) except -1:
        if self.connection is not None and self.connection.cycle is self:
            self.connection.client_left()
        return 0

    cdef Py_ssize_t unsent(self) noexcept:
        return 0 if self.connection is None else self.connection.stream.unsent()

    cdef int flush(self) except -1:
        return 0 if self.connection is None else self.connection.stream.flush()

    cdef int write_head(self) except -1:
        """Decide the framing (RFC 9112 6.3) and queue the whole head in one go."""
        cdef HTTP1Connection connection = self.connection
        cdef Scheduler scheduler = connection.scheduler
        cdef ResponseHead head = self.head
        cdef ByteBuffer out = connection.stream.out
        cdef bytes line = status_line(head.status)
        cdef char* at
        cdef char* start
        if head.bodiless or self.head_only:
            self.framing = NO_BODY
        elif head.content_length >= 0:
            self.framing = LENGTH
            self.remaining = head.content_length
        elif self.minor:
            self.framing = CHUNKED
        else:
            self.framing = UNTIL_CLOSE
            self.keep_alive = False
        # A client that still waits for 100 Continue may or may not send its body now: only a close is unambiguous.
        if head.close or connection.no_request_follows() or self.expects_continue or (
            self.runtime.drain.phase >= ANNOUNCED and connection.is_last_answer(self)
        ):
            self.keep_alive = False
        scheduler.refresh_common()
        start = at = out.reserve(
            PyBytes_GET_SIZE(line) + fields_size(head) + PyBytes_GET_SIZE(scheduler._common) + 64
        )
        at = put(at, line)
        if not (head.has_date or head.has_server):
            at = put(at, scheduler._common)
        else:
            if not head.has_date:
                at = put(at, scheduler.date_line)
            if not head.has_server:
                at = put(at, scheduler.server_line)
        at = put_fields(at, head)
        if self.framing == CHUNKED:
            at = put(at, LINE_CHUNKED)
        if self.minor:
            if not self.keep_alive:
                at = put(at, LINE_CLOSE)
        elif self.keep_alive:
            at = put(at, LINE_KEEP_ALIVE)
        at[0] = c"\r"
        at[1] = c"\n"
        out.end += at + 2 - start
        self.started = True
        if connection.service.counts is not None:
            self.answered = scheduler.tick()
        self.response_begun()
        return 0

    cdef int write_body(self, const char* data, Py_ssize_t n, bint more) except -1:
        cdef HTTP1Connection connection = self.connection
        cdef Stream stream = connection.stream
        cdef ByteBuffer out = stream.out
        cdef char* at
        cdef int digits
        if not self.started:
            self.write_head()
            if more and self.runtime.drain.farewell_over:
                self.runtime.loop.call_soon(self.disconnect_if_closing)     # the others were told before
            if more and connection.eof:
                self.watch_half_closed()
        if self.framing == CHUNKED:
            at = reserved(out, n + CHUNK_OVERHEAD + 8)
            if n:
                digits = put_chunk_size(at, n)
                memcpy(at + digits, data, n)
                at += digits + n
                at[0] = c"\r"
                at[1] = c"\n"
                at += 2
                out.end += digits + n + 2
            if not more:
                memcpy(at, b"0\r\n\r\n", 5)
                out.end += 5
        elif self.framing == LENGTH:
            if n > self.remaining:
                n = <Py_ssize_t>self.remaining
                if not self.too_long:
                    self.too_long = True
                    logger.error("%s: the response body is longer than its content-length: cut", self.describe())
            if n:
                out.append(data, n)
                self.remaining -= n
        elif self.framing == UNTIL_CLOSE:
            if n:
                out.append(data, n)
        else:
            n = 0
        self.body_sent += n
        if not more:
            if self.framing == LENGTH and self.remaining:
                logger.error("%s: the response body is %d bytes shorter than its content-length: connection closed",
                             self.describe(), self.remaining)
                return self.break_off()
            return self.finished()
        if not stream.dirty:
            connection.scheduler.mark_dirty(stream)
        return 0

    cdef int finished(self) except -1:
        """The last byte of the response is queued."""
        self.complete = True
        self.wake_receivers()
        self.release_senders()                 # no later flush is this cycle's
        self.connection.scheduler.mark_dirty(self.connection.stream)
        return self.connection.response_done(self)

    cdef int answer_error(self, int status) except -1:
        cdef HTTP1Connection connection = self.connection
        if connection is None or connection.cycle is not self:
            return 0
        if status != 500 or self.runtime.drain.phase >= ANNOUNCED and not connection.stays_open():
            self.keep_alive = False
        return connection.service.answer(self, status, b"")

    cdef int abort(self) except -1:
        if self.connection is not None and self.connection.cycle is self:
            self.connection.cut_response()
        return 0

    cdef bint whole(self) noexcept:
        return self.complete or (
            self.started and not self.lost
            and (self.framing == NO_BODY or (self.framing == LENGTH and self.remaining == 0))
        )

    cdef bint end_whole(self) except -1:
        cdef HTTP1Connection connection = self.connection
        if connection is None or connection.cycle is not self or not (
            self.framing == CHUNKED or self.framing == UNTIL_CLOSE
        ):
            return False
        self.keep_alive = False
        self.write_body(NULL, 0, False)
        if not self.ended:                     # its task's own end is from here on like that of any other response
            connection.stream.flush()
            if connection.state != CLOSED and connection.stream.unsent():
                # The client is behind. It has as long as the task, or one that never reads would hold the stop.
                self.runtime.loop.call_later(self.runtime.drain.margin, connection.give_up_writing)
        return True

    cdef int limit_waiting(self) except -1:
        """It came after the time for farewells. If its policy is *close* it has as long to answer as the others had."""
        if not self.ended:
            self.runtime.loop.call_later(self.runtime.drain.farewell, self.disconnect_if_closing)
        return 0

    def details(self):
        """What the report tells of this request."""
        found = HTTPCycle.details(self)
        if self.connection is not None and self.connection.state != CLOSED:
            found["client"] = self.connection.peer()
        return found

    cdef int task_ended(self) except -1:
        if self.complete or self.disconnected:
            self.connection = None
        return 0

    # -- a handshake for another protocol, which the application answers ------------------------------------------

    cdef int disconnect(self) except -1:
        cdef AppCycle upgrade = self.upgrade
        HTTPCycle.disconnect(self)
        if upgrade is not None:
            self.upgrade = None
            upgrade.disconnect()
        return 0

    cdef int wake_sender(self) except -1:
        return AppCycle.wake_sender(self if self.upgrade is None else self.upgrade)


@cython.final
cdef class HTTP1Connection(Connection):
    """See the module's docstring. ``scopes`` are those of the listener that the client came in by."""

    def __init__(self, HTTPService service not None, HTTPScopes scopes not None, Stream stream not None):
        cdef object options = service.options
        self.service = service
        self.scopes = scopes
        self.scheduler = service.scheduler
        self.stream = stream
        stream.connection = self
        self.head_at = -1.0
        self.pending = ByteBuffer.__new__(ByteBuffer)
        self.parser = RequestParser(
            limit_request_line=options.limit_request_line,
            limit_headers=options.limit_headers,
            limit_header_bytes=options.limit_header_bytes,
            limit_body=-1 if options.limit_body is None else options.limit_body,
        )

    def __dealloc__(self):
        if self.bounds != NULL:
            unset(&self.bounds.age)
            unset(&self.bounds.request)
            free(self.bounds)

    cdef int become(self, int state) except -1:
        if not MAY_FOLLOW[self.state] >> state & 1:
            raise RuntimeError(f"an HTTP/1 connection in state {self.state} cannot enter state {state}")
        self.state = state
        return 0

    # -- called by net --------------------------------------------------------------------------------------------

    cdef int opened(self) except -1:
        self.scheduler.deadlines.set(&self.read_node, self, HEADER, self.scheduler.time())
        self.accepted_in_drain = self.scheduler.time() >= self.service.drain.since
        if self.service.bounded:
            self.bound(0.0, 0)
        return 0 if self.service.drain.mover is None else self.offer()

    cdef int on_data(self, const unsigned char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t used
        if self.state >= FINISHING:
            return self.discard(n)             # behind a last answer: read only so that no RST eats it
        if self.parser.between_requests() and self.nothing_pending():
            self.head_at = self.scheduler.now  # also behind a request that is being answered
        if not self.nothing_pending():
            self.pending.append(<const char*>p, n)
            return self.advance_pending()
        used = self.advance(p, n)
        if used < n and self.state < FINISHING:
            self.pending.append(<const char*>p + used, n - used)
        return self.after_input()

    cdef int on_last_data(self, const unsigned char* p, Py_ssize_t n) except -1:
        self.eof = True                        # before the requests in these bytes are started: they may ask
        self.on_data(p, n)
        return self.half_closed()

    cdef int on_eof(self) except -1:
        self.eof = True
        return self.half_closed()

    cdef int on_fin_sent(self) except -1:
        Connection.on_fin_sent(self)
        if self.uploading and not self.refused and self.state != CLOSED:
            self.scheduler.deadlines.set(&self.read_node, self, DISCARD, self.scheduler.time())
        return 0

    @property
    def lingering(self):
        """True while it is being closed and reads on, so that its last answer is not eaten by a RST: more may come of
        the request. Not if the client does not read."""
        return self.state == FINISHING and (self.uploading or self.refused) and not self.stream.blocked

    cdef int on_lost(self) except -1:
        self.close_now()
        return 0

    cdef int on_drained(self) except -1:
        if self.cycle is not None:
            self.cycle.wake_sender()
        elif self.waiting == FOR_CLIENT:
            self.waiting = FOR_TURN
            self.resume()
            self.scheduler.mark_runnable(self)
        elif self.service.drain.mover is not None:
            return self.offer()
        return 0

    cdef int run(self) except -1:
        """The scheduler's turn for what waits in ``pending``: the response before it is complete."""
        self.waiting = NO_WAIT
        if self.state >= FINISHING:
            return 0
        if self.service.drain.listeners_closed and self.cycle is None and self.nothing_pending():
            self.close_idle(self.service.drain.since)
            return 0
        return self.advance_pending()

    # -- reading --------------------------------------------------------------------------------------------------

    cdef int advance_pending(self) except -1:
        cdef Py_ssize_t used = self.advance(
            <const unsigned char*>self.pending.data + self.pending.start, self.pending.end - self.pending.start
        )
        self.pending.consume(used)
        self.before_drain = max(0, self.before_drain - used)
        return self.after_input()

    cdef Py_ssize_t advance(self, const unsigned char* p, Py_ssize_t n) except -1:
        """Serve what the buffer holds; return how much of it is consumed."""
        cdef RequestParser parser = self.parser
        cdef int event
        cdef HTTP1Cycle cycle
        cdef int served = 0
        parser.pos = 0
        self.advancing = True
        try:
            while self.state < FINISHING:
                cycle = self.cycle
                if self.state == EXCHANGE:
                    if cycle.request_read:
                        break                  # one exchange after the other
                elif self.state == AWAIT_HEAD:
                    if self.client_must_read():
                        break
                    # A client that pipelines must not own the loop, nor wait for its first answer until the last.
                    if served and parser.pos < n and (served >= MAX_SERVED or self.scheduler.spent()):
                        if not self.waiting:           # else it is in the scheduler's list already
                            self.waiting = FOR_TURN
                            self.scheduler.mark_runnable(self)
                        break
                event = parser.next(p, n)
                if event == HEAD:
                    served += 1
                    self.begin_request()
                elif event == DATA:
                    if cycle is not None:
                        cycle.expects_continue = False
                        cycle.feed(<const char*>p + parser.data_at, parser.data_len)
                    else:
                        self.discarded += parser.data_len
                        if self.discarded > DISCARD_LIMIT:
                            self.uploading = True
                            self.finish()
                elif event == END:
                    if cycle is not None:
                        cycle.request_read = True
                        unset(&self.read_node)
                        cycle.feed_end()
                        if not cycle.called:
                            self.start_request()
                    elif self.service.drain.listeners_closed and parser.pos == n and not self.stays_open():
                        self.finish()
                    else:
                        self.become(AWAIT_HEAD)
                        self.scheduler.deadlines.set(&self.read_node, self, KEEP_ALIVE, self.scheduler.time())
                elif event == NEED_DATA:
                    if cycle is None or cycle.called:
                        break
                    self.start_request()       # it may answer already
                else:
                    self.refuse(parser.status, parser.reason)
        finally:
            self.advancing = False
        return parser.pos

    cdef HTTP1Cycle new_exchange(self):
        """Enter EXCHANGE with a cycle that knows nothing of its request yet."""
        cdef HTTP1Cycle cycle = HTTP1Cycle.__new__(HTTP1Cycle)
        self.become(EXCHANGE)
        cycle.runtime = self.service
        cycle.connection = self
        cycle.since = self.scheduler.time()
        cycle.flush_count = &self.scheduler.flushes
        self.cycle = cycle
        return cycle

    cdef int let_go(self, HTTP1Cycle cycle) except -1:
        """The exchange is over. A task that goes on may still be asked for its client, so it keeps the connection."""
        self.cycle = None
        if self.bounds != NULL:
            unset(&self.bounds.request)
        if cycle.ended:
            cycle.connection = None
        return 0

    cdef int begin_request(self) except -1:
        """A head is complete: make the exchange, and start it now if its body is not still to come."""
        cdef HTTPService service = self.service
        cdef RequestParser parser = self.parser
        cdef HTTP1Cycle cycle = self.new_exchange()
        cdef int admission
        unset(&self.read_node)
        cycle.method = parser.method
        cycle.accept = parser.accept
        cycle.raw_path = parser.raw_path
        cycle.query_string = parser.query_string
        cycle.minor = parser.minor
        cycle.keep_alive = parser.keep_alive and service.keep_alive
        cycle.head_only = parser.method is HEAD_METHOD
        cycle.expects_continue = parser.expect_continue
        cycle.request_read = not parser.has_body
        if self.bounds != NULL:
            self.apply_bounds(cycle)
        admission = service.admit(parser.path)
        if admission == HEALTH:
            cycle.called = True
            return service.answer_health(cycle, parser.path)
        if admission == REFUSE:
            cycle.called = True
            return cycle.answer_error(503)
        if parser.upgrade_websocket and parser.minor and parser.method == "GET":
            if service.websockets is not None:
                return service.websockets.begin(self, cycle)
            service.warn_websocket()
        if self.bounds != NULL and service.timeout_request < INFINITY:
            self.scheduler.deadlines.set(&self.bounds.request, self, REQUEST, self.scheduler.time())
            if not self.scheduler.in_turn:
                self.scheduler.arm()
        if cycle.request_read:
            cycle.body_complete = True
            return self.start_request()
        return 0

    cdef int start_request(self) except -1:
        cdef HTTP1Cycle cycle = self.cycle
        cdef RequestParser parser = self.parser
        cycle.called = True
        if self.client is None and self.server is None:
            self.client = self.stream.client_address()
            self.server = self.stream.server_address()
        cycle.scope = self.scopes.make(
            "1.1" if cycle.minor else "1.0", cycle.method, parser.path, cycle.raw_path, cycle.query_string,
            parser.headers, self.client, self.server, notice_of(cycle),
        )
        cycle.start()
        if self.service.drain.farewell_over:
            cycle.limit_waiting()
        return 0

    cdef int after_input(self) except -1:
        """Set the timeout that now applies to reading, and pause reading where the application is slower."""
        cdef HTTP1Cycle cycle = self.cycle
        if self.state >= FINISHING:
            return 0
        if self.successor is not None:
            return self.become_websocket(self.successor)
        if self.state == EXCHANGE:
            if cycle.request_read:
                if self.pending.end - self.pending.start > HIGH_WATER:
                    self.stream.set_reading(False)
            elif self.eof:
                return self.client_left()      # its body will never be whole
            elif cycle.buffered > HIGH_WATER:
                unset(&self.read_node)         # the client is not the slow one
                self.stream.set_reading(False)
            elif not cycle.expects_continue:
                self.scheduler.deadlines.set(&self.read_node, self, BODY, self.scheduler.time())
            return 0
        if self.state == AWAIT_HEAD:
            if self.waiting:
                if self.pending.end - self.pending.start > HIGH_WATER:
                    self.stream.set_reading(False)
                return 0
            if not self.parser.between_requests() or not self.nothing_pending():
                # A later head has begun. (The first one's time counts from accept and is set already.)
                if self.read_node.previous is NULL or self.read_node.kind != HEADER:
                    self.scheduler.deadlines.set(&self.read_node, self, HEADER, self.scheduler.time())
        if (self.eof or self.idle_in_stop()) and not self.advancing:
            return self.finish()
        self.resume()
        return 0 if self.service.drain.mover is None else self.offer()

    cdef int discard(self, Py_ssize_t n) except -1:
        """Drop what comes behind a last answer, within bounds."""
        if self.state == CLOSED:
            return 0
        self.discarded += n
        if self.discarded > self.service.discard_limit:
            if self.stream.fin_sent:
                self.close_now()
            else:
                self.stream.set_reading(False) # the answer waits to be read: its own time for that bounds it
        elif self.refused and self.stream.fin_sent:
            self.refused = False               # what was refused goes on: it has the time of an upload
            self.uploading = True
            self.scheduler.deadlines.set(&self.read_node, self, DISCARD, self.scheduler.time())
        return 0

    cdef int set_body_deadline(self) except -1:
        """The application waits for the body, so its time begins. No turn needs to follow that would set the timer."""
        self.scheduler.deadlines.set(&self.read_node, self, BODY, self.scheduler.time())
        return 0 if self.scheduler.in_turn else self.scheduler.arm()

    cdef int resume(self) except -1:
        return 0 if self.eof else self.stream.set_reading(True)

    cdef bint nothing_pending(self) noexcept:
        return self.pending.end == self.pending.start

    cdef bint client_must_read(self) except -1:
        """Whether the client has left so many answers unread that it gets no more until it reads (``on_drained``)."""
        if self.stream.unsent() > HIGH_WATER:
            self.stream.flush()
            if self.state == CLOSED:
                return True
            if self.stream.unsent() > HIGH_WATER:
                self.waiting = FOR_CLIENT
                return True
        if self.waiting == FOR_CLIENT:
            self.waiting = NO_WAIT
        return False

    cdef bint no_request_follows(self) noexcept:
        """Whether it is certain that no request comes behind the current one."""
        return self.eof and not self.advancing and self.nothing_pending()

    # -- bounds of a connection and of its requests -----------------------------------------------------------------

    cdef int bound(self, double age, long long requests) except -1:
        """Limits apply from now on: it is ``age`` seconds old and has had ``requests``. Each limit is stretched by up to
        a tenth, or the clients of one moment would all come again in another."""
        cdef HTTPService service = self.service
        cdef double now = self.scheduler.time()
        if self.bounds == NULL:
            self.bounds = <Bounds*>calloc(1, sizeof(Bounds))
            if self.bounds == NULL:
                raise MemoryError()
        self.bounds.requests = requests
        if service.limit_requests:
            self.bounds.most = service.limit_requests + <long long>(service.random() * (service.limit_requests // 10 + 1))
        self.bounds.born = now - age
        self.bounds.ends_at = INFINITY
        if service.max_age < INFINITY:
            self.bounds.ends_at = self.bounds.born + service.max_age * (1.0 + 0.1 * <double>service.random())
            self.scheduler.deadlines.set(&self.bounds.age, self, AGE, now)
        return 0

    cdef int apply_bounds(self, HTTP1Cycle cycle) except -1:
        """A head is complete: say whether its answer is the connection's last. What is pipelined behind it goes
        unanswered, and its client knows by the close (RFC 9112 9.6)."""
        self.bounds.requests += 1
        if (self.bounds.most and self.bounds.requests >= self.bounds.most) or (
            self.scheduler.time() >= self.bounds.ends_at
        ):
            cycle.keep_alive = False
        return 0

    cdef int grow_old(self) except -1:
        """Time to look at its age. Idle, it ends; else its next answer says that it is the last (``apply_bounds``)."""
        if self.scheduler.time() >= self.bounds.ends_at and self.state == AWAIT_HEAD and not self.waiting:
            self.stream.read_now()
            if self.state == AWAIT_HEAD and not self.waiting and self.parser.between_requests() and self.nothing_pending():
                return self.finish()
        if self.state < FINISHING:
            self.scheduler.deadlines.set(&self.bounds.age, self, AGE, self.scheduler.time())
        return 0

    cdef int take_too_long(self) except -1:
        """The request's time is over: 503, or a visible cut. The application learns it like the end of a client, and
        has as long to end."""
        cdef HTTP1Cycle cycle = self.cycle
        cdef double margin = self.service.timeout_disconnect
        if cycle is None:
            return 0
        logger.warning("%s: no complete response in --timeout-request (%g s): %s", cycle.describe(),
                       self.service.timeout_request, "cut" if cycle.started else "503")
        if cycle.started:
            return self.cut_response()
        cycle.called = True
        cycle.keep_alive = False
        self.service.answer(cycle, 503, b"the request took too long")
        cycle.disconnect()
        if not cycle.ended and cycle.task is not None and margin < INFINITY:
            self.service.loop.call_later(margin, cycle.cancel)
        return 0

    cdef object past(self):
        if self.bounds == NULL:
            return None
        return [round(self.scheduler.time() - self.bounds.born, 3), self.bounds.requests]

    cdef int inherit(self, object past) except -1:
        if self.service.bounded:
            age, requests = (0.0, 0) if past is None else past
            self.bound(max(0.0, <double>age), max(0, <long long>requests))
        return 0

    cdef double suspend(self, int* kind) noexcept:
        if self.bounds != NULL:
            unset(&self.bounds.age)
        return Connection.suspend(self, kind)

    cdef int resume_until(self, int kind, double at, Connection behind) except -1:
        if self.bounds != NULL:
            self.scheduler.deadlines.set(&self.bounds.age, self, AGE, self.scheduler.time())
        return Connection.resume_until(self, kind, at, behind)

    # -- the drain ------------------------------------------------------------------------------------------------

    cpdef begin_drain(self):
        self.before_drain = self.pending.end - self.pending.start

    cdef bint is_last_answer(self, HTTP1Cycle cycle) noexcept:
        """In a stop: whether no further request was complete in our buffer when it began. Those are all answered."""
        cdef Py_ssize_t start = self.pending.start, end = start + self.before_drain
        if self.stays_open():
            return False
        if not self.before_drain or not cycle.request_read:
            return True
        if self.advancing:                     # of ``pending``
            start += self.parser.pos
        while start < end and (self.pending.data[start] == c"\r" or self.pending.data[start] == c"\n"):
            start += 1                         # empty lines before a request are no request
        # The request before may have come later in part: then it ends behind what was there before the drain.
        return end <= start or memmem(self.pending.data + start, end - start, b"\r\n\r\n", 4) == NULL

    cdef bint idle_in_stop(self) noexcept:
        """Whether the listeners are closed, and nothing of a request is here whose head began in the drain."""
        if not self.service.drain.listeners_closed or self.state != AWAIT_HEAD or self.waiting or self.stays_open():
            return False
        return (self.parser.between_requests() and self.nothing_pending()) or self.head_at < self.service.drain.since

    def close_idle(self, double since=0.0):
        """Close if no exchange is under way; read once before, and serve what has already come.

        A head that has begun at ``since`` or later may be finished: its own timeout counts. An earlier one may not.
        """
        if self.state != AWAIT_HEAD or self.waiting:
            return
        if self.stays_open():
            self.offer()
            return
        self.stream.read_now()
        if self.state != AWAIT_HEAD or self.waiting:
            return
        if self.parser.between_requests() and self.nothing_pending() or self.head_at < since:
            self.skip_linger = self.stream.unsent() == 0
            self.finish()

    # -- moving to another process --------------------------------------------------------------------------------

    cdef bint stays_open(self) noexcept:
        """In a stop: whether a successor gets this connection, so that no answer closes it and neither do we."""
        return self.service.drain.mover is not None and self.stream.can_move()

    cdef bint can_move(self) noexcept:
        return (
            self.state == AWAIT_HEAD and not self.waiting and not self.advancing and not self.eof
            and self.service.keep_alive and self.nothing_pending() and self.parser.between_requests()
            and self.stream.reading and not self.stream.blocked and not self.stream.dirty
            and self.stream.unsent() == 0 and self.stream.can_move()
        )

    cdef int offer(self) except -1:
        """Tell the mover if there is nothing to do. It looks again when it gets to it: a request may come meanwhile."""
        if self.can_move():
            self.service.drain.mover.offer(self)
        return 0

    # -- ends -----------------------------------------------------------------------------------------------------

    cdef int response_done(self, HTTP1Cycle cycle) except -1:
        """The response is complete; nothing of it will be written any more. The task may go on.

        It returns to whoever sent the last byte, and starts nothing: see "How it unwinds".
        """
        self.record(cycle)
        if self.accepted_in_drain:
            self.accepted_in_drain = False
            self.service.backlog_answered += 1
        self.let_go(cycle)
        if not cycle.keep_alive:
            if not cycle.request_read:
                self.uploading = True
                self.resume()                  # a client that writes until all is written would never read
            return self.finish()
        self.resume()
        if not cycle.request_read:
            # Reading the rest of the body is cheaper than a new connection, but only up to a point.
            self.become(DISCARDING)
            self.discarded = 0
            self.scheduler.deadlines.set(&self.read_node, self, LINGER, self.scheduler.time())
            return 0
        self.become(AWAIT_HEAD)
        self.scheduler.deadlines.set(&self.read_node, self, KEEP_ALIVE, self.scheduler.time())
        if self.advancing:
            return 0
        if self.eof and self.nothing_pending():
            return self.finish()
        if not self.nothing_pending() or (self.service.drain.listeners_closed and not self.stays_open()):
            # In a stop: to be closed, unless the next request, promised an answer, is there.
            self.waiting = FOR_TURN
            self.scheduler.mark_runnable(self)
        return 0

    cdef int half_closed(self) except -1:
        """No byte will come any more. Whether the client still reads is not known: ``receive()`` tells the application
        that it has left, and what is sent is delivered ("printf … | nc -N" works)."""
        if self.state == CLOSED:
            return 0
        self.stream.set_reading(False)
        if self.state == FINISHING:
            if self.stream.fin_sent:
                self.close_now()
        elif self.state == EXCHANGE:
            if not self.cycle.request_read:
                return self.client_left()      # a body cut short: no answer could be about the whole of it
            if self.cycle.upgrade is not None:
                return self.client_left()      # nobody waits for half of a WebSocket
            self.cycle.wake_receivers()
            if self.cycle.started:
                self.cycle.watch_half_closed()
        elif not self.waiting:
            return self.finish()
        return 0

    cdef int refuse(self, int status, str reason) except -1:
        """The peer broke the protocol: answer, if an answer is still possible, and finish."""
        cdef HTTP1Cycle cycle = self.cycle
        logger.info("Invalid HTTP request from %s: %s (%d)", self.peer(), reason, status)
        if self.state == DISCARDING:
            self.refused = True                # its answer is out already
            return self.finish()
        if self.state == AWAIT_HEAD:
            cycle = self.new_exchange()
            named = self.parser.named
            cycle.method = self.parser.method if named else "-"
            cycle.raw_path = self.parser.raw_path if named else b"-"
            cycle.query_string = self.parser.query_string if named else b""
            cycle.head_only = named and self.parser.method == "HEAD"
            cycle.minor = 1
            cycle.ended = True
            cycle.request_read = True
        elif cycle.started:
            return self.client_left()
        cycle.called = True
        cycle.keep_alive = False
        self.refused = status != 408           # who is too slow is not waited for any longer
        self.service.answer(cycle, status, reason.encode("ascii"))
        return cycle.disconnect()              # to a running application it is the same as a client that left

    cdef int client_left(self) except -1:
        """Tell the application, close the connection. Answers to the requests before still go out."""
        cdef HTTP1Cycle cycle = self.cycle
        if cycle is not None and not cycle.started:
            self.let_go(cycle)
            self.finish()
            return cycle.disconnect()
        return self.cut_response()

    cdef int cut_response(self) except -1:
        """End a response visibly incomplete: what was sent is flushed, then the connection is closed without the last
        chunk or the declared rest."""
        if self.state != CLOSED:
            self.stream.flush()
            self.close_now()
        return 0

    def give_up_writing(self):
        """The time is over in which the client could read the end of its last response."""
        if self.state == FINISHING and self.stream.unsent():
            self.abort()

    cdef int expired(self, int kind) except -1:
        cdef HTTP1Cycle cycle = self.cycle
        cdef long long heads
        if kind == AGE:
            return self.grow_old()
        if kind == REQUEST:
            return self.take_too_long()
        if kind == WRITE or self.state == FINISHING:
            return Connection.expired(self, kind)
        if kind == LINGER:                     # the unread body did not end in time
            self.uploading = True
            return self.finish()
        if kind == BODY:
            if cycle is None or cycle.started:
                logger.info("%s stopped sending its request body: connection closed", self.peer())
                self.client_left()
            else:
                # Behind a 408 browsers repeat the request by themselves, a POST too: not once the application has run.
                self.refuse(400 if cycle.called else 408, "the request body did not come in time")
            return 0
        # HEADER or KEEP_ALIVE. What has arrived in the meantime is served.
        heads = self.service.requests
        self.stream.read_now()
        if self.state >= FINISHING or self.service.requests != heads:
            return 0
        if kind == KEEP_ALIVE and not (self.parser.between_requests() and self.nothing_pending()):
            return 0                           # a head has begun
        if kind == HEADER and self.head_at >= 0.0:
            return self.refuse(408, "the request head did not come in time")
        return self.finish()

    cpdef close_now(self):
        """Close at once; with a RST where a FIN would make a response that only the close ends look complete."""
        cdef HTTP1Cycle cycle = self.cycle
        if self.stream.blocked or self.stream.unsent() or (
            cycle is not None and cycle.started and cycle.framing == UNTIL_CLOSE
        ):
            self.abort()
        else:
            Connection.close_now(self)

    cdef int closed(self) except -1:
        cdef HTTP1Cycle cycle = self.cycle
        self.pending.clear()
        if self.bounds != NULL:
            unset(&self.bounds.age)
        if cycle is not None:                  # what is left is of this response first of all
            cycle.lost = self.stream.unsent() > 0
            cycle.body_sent = max(0, cycle.body_sent - self.stream.unsent())
        self.stream.out.clear()
        self.scheduler.keep(self)
        self.stream.connection = None
        if cycle is not None:
            if cycle.started or cycle.head is not None:
                self.record(cycle)
            self.let_go(cycle)
            cycle.disconnect()
        return 0

    cdef int detach(self, Connection successor, bytes unread) except -1:
        """An exchange that is under way is over: its request has become the successor's affair."""
        cdef HTTP1Cycle cycle = self.cycle
        if cycle is not None:
            self.let_go(cycle)
            cycle.connection = None
        if self.bounds != NULL:
            unset(&self.bounds.age)
        self.pending.clear()
        if self.service.drain.phase >= ANNOUNCED:
            successor.begin_drain()
        return Connection.detach(self, successor, unread)

    def hand_over(self, Connection successor not None):
        """Detach: ``successor`` gets the socket, and the bytes that have come behind the last request."""
        cdef bytes unread = bytes(self.pending)
        if self.state != AWAIT_HEAD or self.advancing:     # what ``advance`` has not consumed yet is not in ``pending``
            raise RuntimeError("an exchange is under way: the socket is not free")
        self.detach(successor, unread)

    cdef int become_websocket(self, Connection successor) except -1:
        """The handshake is answered: ``successor`` gets the socket, once what has come behind the request is known."""
        self.successor = None
        if successor.state == CLOSED:
            self.become(CLOSED)                # it did not live that long
        elif self.advancing:
            self.successor = successor
        else:
            self.detach(successor, bytes(self.pending))
        return 0

    # -- words ----------------------------------------------------------------------------------------------------

    cdef int record(self, HTTP1Cycle cycle) except -1:
        return self.service.record(
            # Known already unless nothing was started on this connection.
            cycle, self.client if self.client is not None else self.stream.client_address(),
            "1.1" if cycle.minor else "1.0",
        )

    @property
    def idle(self):
        """True while no exchange is under way and nothing of a request has come."""
        return self.state == AWAIT_HEAD and self.parser.between_requests() and self.nothing_pending()

    @property
    def phase(self):
        """The state's name."""
        return next(name for name, number in NUMBERS.items() if number == self.state)

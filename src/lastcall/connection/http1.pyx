# cython: language_level=3
# length: the connection and its exchange are one machine over shared state; two files would need each other's insides.
"""HTTP/1.1 over one byte stream: requests in, one ASGI cycle each, answers out, in order.

Theory of operation
-------------------
At most one exchange (``cycle``) owns the output at a time. Bytes behind its request wait in ``pending``: that is what
pipelining comes to, and above ``HIGH_WATER`` reading is paused. An exchange ends when its response is complete and its
request is read; a task that goes on after its response (background work) stays among the running tasks but not in the way.

    waiting for a head ──head──▶ exchange: request being read / response being written
          ▲                         │ response complete
          │                         ├── request read, kept alive ─────────────▶ waiting for a head
          │                         ├── request unread: discard ≤ 64 KiB, 1 s ─▶ waiting for a head, or finish
          └─────────────────────────┘── otherwise ────────────────────────────▶ finish (flush, FIN, linger, close)

An application is started after what has already come of its body was fed to it, so a ``receive()`` rarely suspends.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport INFINITY
from libc.string cimport memcpy

import logging

from lastcall.asgi.cycle cimport HTTPCycle
from lastcall.asgi.runtime cimport AppRuntime, make_scope
from lastcall.base.options import HTTPOptions
from lastcall.connection.deadlines cimport BODY, HEADER, KEEP_ALIVE, LINGER, WRITE, unset
from lastcall.connection.scheduler cimport Scheduler
from lastcall.connection.stream cimport HIGH_WATER, LOW_WATER, Connection, Stream
from lastcall.notice.running cimport RunningTasks
from lastcall.wire.buffer cimport ByteBuffer
from lastcall.wire.http1 cimport DATA, END, FAILED, HEAD, NEED_DATA, RequestParser
from lastcall.wire.response cimport ResponseHead, encode_response, status_line

cdef extern from "string.h" nogil:
    void* memmem(const void* haystack, size_t length, const void* needle, size_t size)

cdef object logger = logging.getLogger("lastcall.error")

cdef enum:
    MAX_SERVED = 8               # pipelined requests that one connection may have answered before others get their turn
    DISCARD_LIMIT = 65536        # bytes of an unread body that are worth a kept-alive connection
    YIELD_SENDS = 100            # after so many sends, or bytes, without a suspension the next one gives the loop a turn
    YIELD_BYTES = 65536
    CHUNK_OVERHEAD = 24          # 16 hex digits and two CRLF, with room

cdef bytes CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
cdef bytes LINE_CHUNKED = b"transfer-encoding: chunked\r\n"
cdef bytes LINE_CLOSE = b"connection: close\r\n"
cdef bytes LINE_KEEP_ALIVE = b"connection: keep-alive\r\n"


cdef inline char* put(char* at, bytes text) noexcept:
    cdef Py_ssize_t n = PyBytes_GET_SIZE(text)
    memcpy(at, PyBytes_AS_STRING(text), n)
    return at + n


cdef inline int put_chunk_size(char* at, Py_ssize_t n) noexcept:
    """``n`` in hex, and CRLF; returns how many bytes that is. (snprintf costs as much as the rest of a chunk.)"""
    cdef int digits = 1, i
    while n >> (4 * digits):
        digits += 1
    for i in range(digits):
        at[digits - 1 - i] = b"0123456789abcdef"[(n >> (4 * i)) & 15]
    at[digits] = c"\r"
    at[digits + 1] = c"\n"
    return digits + 2


cdef tuple error_answer(int status, bytes detail):
    """Headers and body of an answer of the server's own."""
    cdef bytes phrase = status_line(status)[len(b"HTTP/1.1 400 "):-2]
    cdef bytes body = phrase + (b": " + detail if detail else b"") + b"\n"
    cdef list headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return headers, body


@cython.final
cdef class HTTPService(AppRuntime):
    """What all HTTP connections of one worker share. ``on_max_requests()`` is called once, at the request that reaches
    ``options.limit_max_requests``."""

    def __init__(self, app, RunningTasks tasks not None, Scheduler scheduler not None, options=None, *, state=None, on_max_requests=None, context=None,
                 signal=None, policies=None, double timeout_disconnect=3.0):
        if options is None:
            options = HTTPOptions()
        AppRuntime.__init__(
            self, app, scheduler.loop, tasks, state=state, root_path=options.root_path, default_headers=options.headers,
            context=context, signal=signal, policies=policies, timeout_disconnect=timeout_disconnect,
        )
        self.scheduler = scheduler
        self.drained_from = INFINITY
        if options.health_path:
            self.ready_path = options.health_path + "/ready"
            self.live_path = options.health_path + "/live"
        scheduler.tasks = tasks
        self.options = options
        self.keep_alive = options.timeout_keep_alive > 0
        self.limit_concurrency = options.limit_concurrency or 0
        self.max_requests = options.limit_max_requests or 0
        self.on_max_requests = on_max_requests

    cdef double clock(self) noexcept:
        return self.scheduler.time()


@cython.final
cdef class HTTP1Cycle(HTTPCycle):
    """One exchange of an HTTP/1 connection."""

    cdef int wants_body(self) except -1:
        cdef HTTP1Connection connection = self.connection
        if connection is None or connection.cycle is not self:
            return 0
        if connection.expect_pending:
            # RFC 9110 10.1.1: only now is it known that the body is wanted.
            connection.expect_pending = False
            if not self.started:
                connection.stream.out.append_bytes(CONTINUE)
                connection.scheduler.mark_dirty(connection.stream)
            connection.set_body_deadline()
        return 0

    cdef int body_taken(self, Py_ssize_t n) except -1:
        cdef HTTP1Connection connection = self.connection
        if connection is not None and connection.cycle is self and connection.paused:
            connection.resume()
            connection.set_body_deadline()
        return 0

    cdef bint congested(self) noexcept:
        cdef ByteBuffer out
        if self.connection is None:
            return False
        out = self.connection.stream.out
        return out.end - out.start > HIGH_WATER

    cdef bint must_yield(self) noexcept:
        if self.unsuspended <= YIELD_SENDS and self.unsuspended_bytes < YIELD_BYTES:
            return False
        self.unsuspended = 0
        self.unsuspended_bytes = 0
        return True

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
        if head.close or connection.ended() or connection.expect_pending or (
            connection.service.draining and connection.is_last_answer()
        ):
            self.keep_alive = False
        scheduler.refresh_common()
        start = at = out.reserve(PyBytes_GET_SIZE(line) + PyBytes_GET_SIZE(head.block) + PyBytes_GET_SIZE(scheduler._common)
                                 + 64)
        at = put(at, line)
        if not (head.has_date or head.has_server):
            at = put(at, scheduler._common)
        else:
            if not head.has_date:
                at = put(at, scheduler.date_line)
            if not head.has_server:
                at = put(at, scheduler.server_line)
        at = put(at, head.block)
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
        return 0

    cdef int write_body(self, const char* data, Py_ssize_t n, bint more) except -1:
        cdef HTTP1Connection connection = self.connection
        cdef Stream stream = connection.stream
        cdef ByteBuffer out = stream.out
        cdef char* at
        cdef int digits
        if not self.started:
            self.write_head()
            if more and self.runtime.signal.farewell_over:
                self.runtime.loop.call_soon(self.disconnect_if_closing)     # the others were told before
        if self.framing == LENGTH:
            if n > self.remaining:
                n = <Py_ssize_t>self.remaining
                if not self.cut:
                    self.cut = True
                    logger.error("%s: the response body is longer than its content-length: cut", self.describe())
            if n:
                out.append(data, n)
                self.remaining -= n
        elif self.framing == CHUNKED:
            at = out.reserve(n + CHUNK_OVERHEAD + 8)
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
                return self.abort()
            return self.finished()
        if self.flushes != connection.scheduler.flushes:
            self.flushes = connection.scheduler.flushes
            self.unsuspended = 0
            self.unsuspended_bytes = 0
        self.unsuspended += 1
        self.unsuspended_bytes += n
        connection.scheduler.mark_dirty(stream)
        if out.end - out.start > HIGH_WATER:
            stream.flush()
        return 0

    cdef int finished(self) except -1:
        """The last byte of the response is queued."""
        self.complete = True
        self._wake_receivers()
        self.wake_sender()                     # no later flush is this cycle's
        self.connection.scheduler.mark_dirty(self.connection.stream)
        return self.connection.response_done(self)

    cdef int answer_error(self, int status) except -1:
        cdef HTTP1Connection connection = self.connection
        cdef list headers
        cdef bytes body
        if connection is None or connection.cycle is not self:
            return 0
        headers, body = error_answer(status, b"")
        self.head = encode_response(status, headers, connection.service.default_headers)
        if status != 500 or connection.service.draining:
            self.keep_alive = False
        return self.write_body(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), False)

    cdef int abort(self) except -1:
        if self.connection is not None and self.connection.cycle is self:
            self.connection.cut_response(self)
        return 0

    def details(self):
        """What the report tells of this request."""
        found = HTTPCycle.details(self)
        if self.connection is not None and not self.connection.stream.closed:
            found["client"] = self.connection.peer()
        return found

    cdef int task_ended(self) except -1:
        if self.complete or self.disconnected:
            self.connection = None
        return 0


@cython.final
cdef class HTTP1Connection(Connection):
    """See the module's docstring."""

    def __init__(self, HTTPService service not None, Stream stream not None):
        cdef object options = service.options
        self.service = service
        self.scheduler = service.scheduler
        self.stream = stream
        stream.connection = self
        self.nothing_read = True
        self.pending = ByteBuffer.__new__(ByteBuffer)
        self.parser = RequestParser(
            limit_request_line=options.limit_request_line,
            limit_headers=options.limit_headers,
            limit_header_bytes=options.limit_header_bytes,
            limit_body=-1 if options.limit_body is None else options.limit_body,
        )

    # -- called by net --------------------------------------------------------------------------------------------

    cdef int opened(self) except -1:
        self.scheduler.deadlines.set(&self.read_node, self, HEADER, self.scheduler.time())
        self.late = self.scheduler.time() >= self.service.drained_from
        return 0

    cdef int on_data(self, const unsigned char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t used
        if self.finishing or self.stream.closed:
            return 0                           # behind a last answer: read only so that no RST eats it
        self.nothing_read = False
        if self.parser.idle and self.pending.end == self.pending.start:
            self.head_at = self.scheduler.now        # also behind a request that is being answered
        if self.pending.end > self.pending.start:
            self.pending.append(<const char*>p, n)
            return self.advance_pending()
        used = self.advance(p, n)
        if used < n and not self.finishing and not self.stream.closed:
            self.pending.append(<const char*>p + used, n - used)
        return self.after_input()

    cdef int run(self) except -1:
        """The response before what waits in ``pending`` is complete."""
        self.waiting = False
        if self.finishing or self.stream.closed:
            return 0
        if self.service.listeners_closed and self.cycle is None and self.pending.end == self.pending.start:
            self.close_idle(self.service.drained_from)
            return 0
        return self.advance_pending()

    cdef int advance_pending(self) except -1:
        cdef Py_ssize_t used = self.advance(
            <const unsigned char*>self.pending.data + self.pending.start, self.pending.end - self.pending.start
        )
        self.pending.consume(used)
        self.owed = max(0, self.owed - used)
        return self.after_input()

    cdef int on_last_data(self, const unsigned char* p, Py_ssize_t n) except -1:
        # The requests in these bytes are not started yet, so this FIN is no sign that nobody waits for their answers.
        self.eof = True
        self.on_data(p, n)
        return self.half_closed()

    cdef int on_eof(self) except -1:
        self.eof = True
        if self.cycle is not None and self.cycle.started and not self.stream.closed:
            return self.client_left()          # of a started response a FIN says: I do not want the rest
        return self.half_closed()

    cdef int half_closed(self) except -1:
        """No byte will come any more; what was asked for completely is answered ("printf … | nc -N" works)."""
        if self.stream.closed:
            return 0
        self.stream.set_reading(False)
        if self.finishing:
            if self.stream.fin_sent:
                self.close_now()
        elif self.cycle is not None:
            if not self.request_read:
                return self.client_left()      # a body cut short: no answer could be about the whole of it
        elif not self.waiting:
            return self.finish()
        return 0

    cdef bint ended(self) noexcept:
        """Whether it is certain that no request comes behind the current one."""
        return self.eof and not self.advancing and self.pending.end == self.pending.start

    cdef bint is_last_answer(self) noexcept:
        """In a stop: whether no further request was complete in our buffer when it began. Those are all answered."""
        cdef Py_ssize_t start = self.pending.start, end = start + self.owed     # what came later is not owed
        if not self.request_read or not self.owed:
            return True
        if self.advancing:                     # of ``pending``
            start += self.parser.pos
        while start < end and (self.pending.data[start] == c"\r" or self.pending.data[start] == c"\n"):
            start += 1                         # empty lines before a request are no request
        # The request before may have come later in part: then it ends behind what is owed.
        return end <= start or memmem(self.pending.data + start, end - start, b"\r\n\r\n", 4) == NULL

    cdef bint outstayed(self) noexcept:
        """Whether the door is closed for this connection: it is quiet, or its head began before the stop."""
        if not self.service.listeners_closed or self.waiting or self.discarding or self.cycle is not None:
            return False
        return (self.parser.idle and self.pending.end == self.pending.start) or self.head_at < self.service.drained_from

    cpdef begin_drain(self):
        self.owed = self.pending.end - self.pending.start

    cdef int on_lost(self) except -1:
        self.close_now()
        return 0

    cdef int on_drained(self) except -1:
        if self.cycle is not None:
            self.cycle.wake_sender()
        elif self.held:
            self.held = False
            self.resume()
            self.scheduler.mark_runnable(self)
        return 0

    cdef int closed(self) except -1:
        cdef HTTP1Cycle cycle = self.cycle
        self.pending.clear()
        self.stream.out.clear()
        self.scheduler.keep(self)
        self.stream.connection = None
        if cycle is not None:
            self.cycle = None
            if cycle.started or cycle.head is not None:
                self.log(cycle)
            cycle.disconnect()
            if cycle.ended:
                cycle.connection = None
        return 0

    # -- reading --------------------------------------------------------------------------------------------------

    cdef Py_ssize_t advance(self, const unsigned char* p, Py_ssize_t n) except -1:
        """Serve what the buffer holds; return how much of it is consumed."""
        cdef RequestParser parser = self.parser
        cdef int event
        cdef HTTP1Cycle cycle
        cdef int served = 0
        parser.pos = 0
        self.advancing = True
        try:
            while not self.finishing and not self.stream.closed:
                cycle = self.cycle
                if cycle is not None and self.request_read:
                    break                      # one exchange after the other
                if cycle is None and not self.discarding:
                    if self.clogged():
                        break
                    # A client that pipelines must not own the loop, nor wait for its first answer until the last.
                    if served and parser.pos < n and (served >= MAX_SERVED or self.scheduler.spent()):
                        if not self.waiting:           # else it is in the scheduler's list already
                            self.waiting = True
                            self.scheduler.mark_runnable(self)
                        break
                event = parser.next(p, n)
                if event == HEAD:
                    served += 1
                    self.begin_request()
                elif event == DATA:
                    self.expect_pending = False
                    if cycle is not None:
                        cycle.feed(<const char*>p + parser.data_at, parser.data_len)
                    else:
                        self.discarded += parser.data_len
                        if self.discarded > DISCARD_LIMIT:
                            self.finish()
                elif event == END:
                    self.request_read = True
                    if cycle is not None:
                        unset(&self.read_node)
                        cycle.feed_end()
                        if self.starting:
                            self.start_request()
                    else:
                        self.discarding = False
                        if self.service.listeners_closed and parser.pos == n:
                            self.finish()
                        else:
                            self.scheduler.deadlines.set(&self.read_node, self, KEEP_ALIVE, self.scheduler.time())
                elif event == NEED_DATA:
                    if self.starting:
                        self.start_request()
                        continue               # it may have answered already
                    break
                else:
                    self.refuse(parser.status, parser.reason)
        finally:
            self.advancing = False
        return parser.pos

    cdef bint clogged(self) except -1:
        """Whether the client has left so many answers unread that it gets no more until it reads (``on_drained``)."""
        cdef Stream stream = self.stream
        if stream.out.end - stream.out.start > HIGH_WATER:
            stream.flush()
            if stream.closed:
                return True
            if stream.out.end - stream.out.start > HIGH_WATER:
                self.waiting = self.held = True
                return True
        if self.held:
            self.waiting = self.held = False
        return False

    cdef int begin_request(self) except -1:
        """A head is complete: make the exchange, and start it now if its body is not still to come."""
        cdef HTTPService service = self.service
        cdef RequestParser parser = self.parser
        cdef HTTP1Cycle cycle = HTTP1Cycle.__new__(HTTP1Cycle)
        unset(&self.read_node)
        cycle.runtime = service
        cycle.connection = self
        cycle.method = parser.method
        cycle.raw_path = parser.raw_path
        cycle.query_string = parser.query_string
        cycle.minor = parser.minor
        cycle.keep_alive = parser.keep_alive and service.keep_alive
        cycle.head_only = parser.method == "HEAD"
        cycle.since = self.scheduler.time()
        self.cycle = cycle
        self.expect_pending = parser.expect_continue
        self.request_read = not parser.has_body
        self.starting = True
        service.requests += 1
        if parser.upgrade_websocket and not service.warned_websocket:
            service.warned_websocket = True
            logger.warning(
                "A client asked for a WebSocket, which this release of lastcall does not speak yet: "
                "it is answered as plain HTTP (RFC 9110 7.8)."
            )
        if service.ready_path is not None and (
            parser.path == service.ready_path or parser.path == service.live_path
        ):
            service.probes += 1
            self.starting = False
            return self.answer_health()
        if service.max_requests and service.requests - service.probes == service.max_requests and (
            service.on_max_requests is not None
        ):
            service.on_max_requests()
        if service.refusing or (
            service.limit_concurrency and service.tasks.count - service.tasks.others >= service.limit_concurrency
        ):
            self.starting = False
            cycle.answer_error(503)
        elif self.request_read:
            cycle.body_complete = True
            self.start_request()
        return 0

    cdef int answer_health(self) except -1:
        """``--health-path``: ready until the stop order, live as long as this loop answers."""
        cdef HTTP1Cycle cycle = self.cycle
        cdef int status = 200
        cdef bytes body = b"ok\n"
        cdef list headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
        if cycle.method not in ("GET", "HEAD"):
            status, body = 405, b"Method Not Allowed\n"
            headers.append((b"allow", b"GET, HEAD"))
        elif self.parser.path == self.service.ready_path and self.service.signal.stopping:
            status, body = 503, b"stopping\n"
        headers.append((b"content-length", b"%d" % len(body)))
        cycle.ended = True
        cycle.head = encode_response(status, headers, self.service.default_headers)
        return cycle.write_body(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), False)

    cdef int start_request(self) except -1:
        cdef HTTP1Cycle cycle = self.cycle
        cdef RequestParser parser = self.parser
        self.starting = False
        if self.client is None and self.server is None:
            self.client = self.stream.client_address()
            self.server = self.stream.server_address()
        cycle.scope = make_scope(
            self.service, "1.1" if cycle.minor else "1.0", cycle.method, parser.path, cycle.raw_path,
            cycle.query_string, parser.headers, self.client, self.server,
            cycle,
        )
        return cycle.start()

    cdef int after_input(self) except -1:
        """Set the timeout that now applies to reading, and pause reading where the application is slower."""
        cdef HTTP1Cycle cycle = self.cycle
        if self.finishing or self.stream.closed:
            return 0
        if cycle is None:
            if self.discarding:
                pass
            elif self.waiting:                 # held, or for its turn
                if self.pending.end - self.pending.start > HIGH_WATER:
                    self.pause()
                return 0
            elif not self.parser.idle or self.pending.end > self.pending.start:
                # A later head has begun. (The first one's time counts from accept and is set already.)
                if self.read_node.previous is NULL or self.read_node.kind != HEADER:
                    self.scheduler.deadlines.set(&self.read_node, self, HEADER, self.scheduler.time())
            if (self.eof or self.outstayed()) and not self.advancing:
                return self.finish()
            return self.resume()
        if self.request_read:
            if self.pending.end - self.pending.start > HIGH_WATER:
                self.pause()
        elif self.eof:
            return self.client_left()          # its body will never be whole
        elif cycle.buffered > HIGH_WATER:
            unset(&self.read_node)             # the client is not the slow one
            self.pause()
        elif not self.expect_pending:
            self.scheduler.deadlines.set(&self.read_node, self, BODY, self.scheduler.time())
        return 0

    cdef int set_body_deadline(self) except -1:
        """The application waits for the body, so its time begins. No turn needs to follow that would set the timer."""
        self.scheduler.deadlines.set(&self.read_node, self, BODY, self.scheduler.time())
        return 0 if self.scheduler.in_turn else self.scheduler.arm()

    cdef int pause(self) except -1:
        if not self.paused:
            self.paused = True
            self.stream.set_reading(False)
        return 0

    cdef int resume(self) except -1:
        if self.paused:
            self.paused = False
            if not self.eof:
                self.stream.set_reading(True)
        return 0

    # -- ends -----------------------------------------------------------------------------------------------------

    cdef int response_done(self, HTTP1Cycle cycle) except -1:
        """The response is complete; nothing of it will be written any more. The task may go on."""
        self.log(cycle)
        if self.late:
            self.late = False
            self.service.backlog_answered += 1
        self.cycle = None
        if cycle.ended:
            cycle.connection = None
        if not cycle.keep_alive:
            return self.finish()
        if self.paused:
            self.resume()
        if not self.request_read:
            # Reading the rest of the body is cheaper than a new connection, but only up to a point.
            self.discarding = True
            self.discarded = 0
            self.scheduler.deadlines.set(&self.read_node, self, LINGER, self.scheduler.time())
        else:
            self.scheduler.deadlines.set(&self.read_node, self, KEEP_ALIVE, self.scheduler.time())
            if self.pending.end > self.pending.start and not self.advancing:
                self.waiting = True
                self.scheduler.mark_runnable(self)
            elif self.eof and not self.advancing:
                return self.finish()
            elif self.service.listeners_closed and not self.advancing:
                self.waiting = True            # to be closed, unless the next request, promised an answer, is there
                self.scheduler.mark_runnable(self)
        return 0

    cdef int refuse(self, int status, str reason) except -1:
        """The peer broke the protocol: answer, if an answer is still possible, and finish."""
        cdef HTTP1Cycle cycle = self.cycle
        logger.info("Invalid HTTP request from %s: %s (%d)", self.peer(), reason, status)
        if self.discarding:
            return self.finish()               # its answer is out already
        if cycle is None:
            cycle = HTTP1Cycle.__new__(HTTP1Cycle)
            cycle.runtime = self.service
            cycle.connection = self
            named = self.parser.named
            cycle.method = self.parser.method if named else "-"
            cycle.raw_path = self.parser.raw_path if named else b"-"
            cycle.query_string = self.parser.query_string if named else b""
            cycle.head_only = named and self.parser.method == "HEAD"
            cycle.minor = 1
            cycle.since = self.scheduler.time()
            cycle.ended = True
            self.request_read = True
            self.cycle = cycle
        elif cycle.started:
            return self.client_left()
        self.starting = False
        headers, body = error_answer(status, reason.encode("ascii"))
        cycle.keep_alive = False
        cycle.head = encode_response(status, headers, self.service.default_headers)
        cycle.write_body(PyBytes_AS_STRING(<bytes>body), PyBytes_GET_SIZE(<bytes>body), False)
        return cycle.disconnect()              # to a running application it is the same as a client that left

    cdef int client_left(self) except -1:
        """Tell the application, close the connection. Answers to the requests before still go out."""
        cdef HTTP1Cycle cycle = self.cycle
        if cycle is not None and not cycle.started:
            self.cycle = None
            self.starting = False
            cycle.disconnect()
            if cycle.ended:
                cycle.connection = None
            return self.finish()
        self.stream.flush()
        self.close_now()
        return 0

    cdef int cut_response(self, HTTP1Cycle cycle) except -1:
        """End a response visibly incomplete: what was sent is flushed, then the connection is closed without the last
        chunk or the declared rest."""
        if not self.stream.closed:
            self.stream.flush()
            self.close_now()
        return 0

    cdef int expired(self, int kind) except -1:
        cdef HTTP1Cycle cycle = self.cycle
        cdef long long heads
        if kind == WRITE or self.finishing:
            return Connection.expired(self, kind)
        if kind == LINGER:                     # the unread body did not end in time
            return self.finish()
        if kind == BODY:
            if cycle is None or cycle.started:
                logger.info("%s stopped sending its request body: connection closed", self.peer())
                self.client_left()
            else:
                self.refuse(408, "the request body did not come in time")
            return 0
        # HEADER or KEEP_ALIVE. What has arrived in the meantime is served.
        heads = self.service.requests
        self.stream.read_now()
        if self.stream.closed or self.finishing or self.service.requests != heads:
            return 0
        if kind == KEEP_ALIVE and not (self.parser.idle and self.pending.end == self.pending.start):
            return 0                           # a head has begun
        if kind == HEADER and not self.nothing_read:
            return self.refuse(408, "the request head did not come in time")
        return self.finish()

    cpdef close_now(self):
        """Close at once; with a RST where a FIN would make a response that only the close ends look complete."""
        cdef HTTP1Cycle cycle = self.cycle
        if self.stream.blocked or self.stream.out.end > self.stream.out.start or (
            cycle is not None and cycle.started and cycle.framing == UNTIL_CLOSE
        ):
            self.abort()
        else:
            Connection.close_now(self)

    def close_idle(self, double since=0.0):
        """Close if no request is being served or read; read once before, and serve what has already come.

        A head that has begun at ``since`` or later may be finished: its own timeout counts.
        """
        if self.finishing or self.stream.closed or self.cycle is not None or self.discarding or self.waiting:
            return
        self.stream.read_now()
        if self.finishing or self.stream.closed or self.cycle is not None or self.discarding or self.waiting:
            return
        if self.parser.idle and self.pending.end == self.pending.start or self.head_at < since:
            self.skip_linger = self.stream.out.end == self.stream.out.start
            self.finish()

    # -- words ----------------------------------------------------------------------------------------------------

    cdef int log(self, HTTP1Cycle cycle) except -1:
        cdef bytes target
        if self.scheduler.access.enabled and cycle.head is not None:
            target = cycle.raw_path + b"?" + cycle.query_string if cycle.query_string else cycle.raw_path
            self.scheduler.access.record(
                # Known already unless nothing was started on this connection.
                self.client if self.client is not None else self.stream.client_address(),
                cycle.method, target, "1.1" if cycle.minor else "1.0", cycle.head.status,
                self.scheduler.tick() - cycle.since, cycle.body_sent,
            )
        return 0

    @property
    def idle(self):
        """True while no exchange is under way and nothing of a request has come."""
        return self.cycle is None and not self.discarding and self.parser.idle and (
            self.pending.end == self.pending.start
        )

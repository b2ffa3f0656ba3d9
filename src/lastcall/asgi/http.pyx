# cython: language_level=3
"""One HTTP request and its response as an ASGI application sees them (ASGI HTTP spec 2.5).

``HTTPCycle`` is what every HTTP version shares: the messages, their order, the request body, the head that is held
until its body comes. A subclass in ``connection`` puts bytes on its own wire by overriding the methods below "what
each HTTP version does its own way".
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_Next, PyDict_Size
from cpython.object cimport Py_TYPE, PyObject

import logging

from lastcall.asgi.awaitables cimport DONE, later
from lastcall.asgi.cycle cimport TURN, YIELD_SENDS, AppCycle, PyMethod_New, item, lastcall_thread, marked
from lastcall.base.errors import LocalProtocolError
from lastcall.drain.report import BROKEN_OFF, CLOSED_BY_POLICY
from lastcall.drain.state cimport ANNOUNCED, DRAINING
from lastcall.wire.head cimport check_head

cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object o)
    PyObject* Py_True
    PyObject* Py_False
    PyObject* Py_None

cdef object logger = logging.getLogger("lastcall.error")

cdef enum:
    LARGE = 65536                    # a message that is worth a write of its own

cdef bytes EVENT_STREAM = b"text/event-stream"
cdef double HEAD_SECONDS = 0.005     # a head waits so long for its body: both in one packet are cheaper


cdef struct Parts:
    # values of a message, borrowed; None: it has no such key
    PyObject* type
    PyObject* body
    PyObject* more_body
    PyObject* status
    PyObject* headers

# The objects that the last messages had as their types: applications send constants, which need not be compared again.
cdef object BODY = "http.response.body"
cdef object START = "http.response.start"


cdef bint is_body(object kind):
    global BODY
    if kind != "http.response.body":
        return False
    if PyUnicode_CheckExact(kind):
        BODY = kind
    return True


cdef bint is_start(object kind):
    global START
    if kind != "http.response.start":
        return False
    if PyUnicode_CheckExact(kind):
        START = kind
    return True


cdef bint accepts_events(bytes value) except -1:
    """Whether an Accept field has ``text/event-stream`` among its types (RFC 9110 12.5.1)."""
    cdef bytes part, word, name, weight
    cdef list words
    for part in value.lower().split(b","):
        words = part.split(b";")
        if words[0].strip() == EVENT_STREAM:
            for word in words[1:]:
                name, _, weight = word.partition(b"=")
                if name.strip() == b"q" and not weight.strip(b" \t0."):
                    return False       # RFC 9110 12.4.2: a weight of 0 is "not acceptable"
            return True
    return False


cdef inline bint is_plain(PyObject* flag) noexcept:
    """Whether a truth value is one of those that need not be asked."""
    return flag == Py_True or flag == Py_False or flag == Py_None


cdef inline bint take_apart(object message, Parts* parts) noexcept:
    """Find the values of a message in one pass, by the identity of its keys: they are interned constants nearly always.
    False where that does not do."""
    cdef Py_ssize_t at = 0, left
    cdef PyObject* key
    cdef PyObject* value
    parts.type = parts.body = parts.more_body = parts.status = parts.headers = <PyObject*>None
    if not PyDict_CheckExact(message):
        return False
    left = PyDict_Size(message)
    while left > 0 and PyDict_Next(message, &at, &key, &value):
        left -= 1
        if key == <PyObject*>"type":
            parts.type = value
        elif key == <PyObject*>"body":
            parts.body = value
        elif key == <PyObject*>"more_body":
            parts.more_body = value
        elif key == <PyObject*>"status":
            parts.status = value
        elif key == <PyObject*>"headers":
            parts.headers = value
        else:
            return False
    return parts.type is not <PyObject*>None


cdef object SENDER = None                # see RECEIVER in ``asgi.cycle``


cdef int check_sender(object cycle) except -1:
    """Raise TypeError for the ``self`` of a ``send()`` that is no HTTP cycle."""
    global SENDER
    if not isinstance(cycle, HTTPCycle):
        raise TypeError(f"send() is of an HTTP request, not of {type(cycle).__name__!r}")
    SENDER = type(cycle)
    return 0


cdef class HTTPCycle(AppCycle):
    """See the module's docstring. Connections drive it through its C methods; applications see receive and send."""

    # -- driven by the connection ---------------------------------------------------------------------------------

    cdef int feed(self, const char* data, Py_ssize_t n) except -1:
        """Body bytes have come."""
        cdef bytes piece = PyBytes_FromStringAndSize(data, n)
        if self.complete:
            return 0
        if self.body is None:
            self.body = piece
        else:
            if PyBytes_CheckExact(self.body):
                self.body = bytearray(self.body)
            self.body += piece        # one block: chunks of a few bytes must not cost an object each
        self.buffered += n
        return self.wake_receivers()

    cdef int feed_end(self) except -1:
        """The whole body has come."""
        self.body_complete = True
        return self.wake_receivers()

    # -- what each HTTP version does its own way ------------------------------------------------------------------

    cdef int write_body(self, const char* data, Py_ssize_t n, bint more) except -1:
        """Queue the head if it is still held, then the body bytes, then, unless ``more``, the end."""
        raise NotImplementedError

    cdef int body_taken(self, Py_ssize_t n) except -1:
        """The application took ``n`` buffered body bytes: reading may go on."""
        return 0

    cdef int answer_error(self, int status) except -1:
        """Answer with a short error of the server's own. Called only while nothing of the response is queued."""
        raise NotImplementedError

    cdef int abort(self) except -1:
        """End a response that has begun, in a way that no client takes for complete."""
        raise NotImplementedError

    cdef bint whole(self) noexcept:
        """Whether the client gets all of the response, or did: its framing has nothing left, though the last message of
        the application may be missing."""
        return self.complete

    cdef bint end_whole(self) except -1:
        """End a response that has begun as a complete one ends, and its connection behind it. False, and nothing is
        done, where its framing does not allow that."""
        return False

    # -- what AppCycle asks ---------------------------------------------------------------------------------------

    cdef object message(self):
        cdef object body
        cdef Py_ssize_t n
        if self.disconnected or self.complete:
            return TURN if self.turn_is_due() else {"type": "http.disconnect"}
        if self.body is not None:
            body = self.body
            if not PyBytes_CheckExact(body):
                body = bytes(body)
            self.body = None
            n = self.buffered
            self.buffered = 0
            if self.body_complete:
                self.body_given = True
            else:
                self.body_taken(n)
            return {"type": "http.request", "body": body, "more_body": not self.body_given}
        if self.body_complete and not self.body_given:
            self.body_given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self.half_closed():
            self.told = True
            return TURN if self.turn_is_due() else {"type": "http.disconnect"}
        return None

    cdef int deliver(self, object data) except -1:
        return self.write_body(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), True)

    cdef bint leave_is_limited(self) noexcept:
        return self.head is not None    # a handler that has not answered is not cancelled because its client left

    cdef bint answers(self) noexcept:
        return self.started

    cdef int suspended(self) except -1:
        return self._hold_head() if self.head is not None and not self.started else 0

    cdef int unfinished(self, bint raised) except -1:
        if not self.started:
            if not raised and not self.cancelled:
                logger.error("%s: the application returned without a response", self.describe())
            self.head = None
            return self.answer_error(503 if self.cancelled else 500)
        if self.whole():
            self.write_body(NULL, 0, False)
            self.incomplete = False
            return 0
        if not raised:
            # In a stop it may mean to: sse-starlette ends its streams so when it sees one coming.
            if self.runtime.drain.phase == DRAINING and self.is_event_stream() and self.end_whole():
                self.incomplete = False
                return 0
            logger.log(
                logging.INFO if self.runtime.signal.is_set else logging.ERROR,
                "%s: the application returned in the middle of its response", self.describe(),
            )
        return self.break_off()

    cdef int break_off(self) except -1:
        """The application has ended its response in the middle. In a stop the report names it: a client was cut."""
        cdef bint reported = self.runtime.drain.phase >= ANNOUNCED and self.outcome is None
        cdef object found = self.details() if reported else None     # before the connection, which knows the client, ends
        self.abort()
        if reported:
            self._broken_off = found
            self.outcome = BROKEN_OFF
        return 0

    cdef int cancel_timers(self) except -1:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
        return AppCycle.cancel_timers(self)

    # -- the drain ------------------------------------------------------------------------------------------------

    @property
    def kind(self):
        """``background`` after the response, ``stream`` within it, ``request`` before."""
        return "background" if self.complete else "stream" if self.head is not None else "request"

    cdef bint wants_events(self) except -1:
        """Whether an EventSource, or something like it, asks: GET, with ``text/event-stream`` among what it accepts."""
        return self.method == "GET" and self.accept is not None and accepts_events(self.accept)

    cdef bint is_event_stream(self) except -1:
        """Whether the client has asked for an event stream and gets one. It comes back by itself after the end of one,
        and takes a cut for a fault; whoever reads any other response must see that it is not whole."""
        if not self.wants_events():
            return False
        for name, value in self.head.pairs:
            if name.lower() == b"content-type":
                return value.lower().partition(b";")[0].strip() == EVENT_STREAM
        return False

    @property
    def response_complete(self):
        """Whether ending it cuts nothing: the application has finished its response, or there is nothing left of it."""
        return not self.incomplete if self.complete else self.whole()

    @property
    def broken_off(self):
        """The details of a response that its application has ended in the middle, during a stop; else None."""
        return self._broken_off

    @property
    def disconnectable(self):
        """Whether the response has started, is not finished, and has a client."""
        return self.head is not None and not self.complete and not self.disconnected

    def disconnect_response(self, str outcome):
        """Disconnect the response if it has started and is not finished; return whether it was.

        Policy *close* covers a GET or HEAD that has not begun its response, too, say a long poll. It is answered 503: its
        client can send it again, which no other method may be taken to allow (RFC 9110 9.2.1).
        """
        if self.ended:
            return False
        if outcome == CLOSED_BY_POLICY and self.head is None and not (self.complete or self.disconnected) and (
            self.method == "GET" or self.method == "HEAD"
        ):
            self.outcome = outcome
            self.answer_error(503)
            self._leave_whole()
            return True
        if not self.disconnectable:
            return False
        self.outcome = outcome
        if not self.started:
            self.write_body(NULL, 0, True)
        if outcome == CLOSED_BY_POLICY and self.is_event_stream() and self.end_whole():
            self._leave_whole()
        else:
            self.abort()
        return True

    cdef int _leave_whole(self) except -1:
        """What the client has got looks whole, and nobody waits for the task any more: disconnect it, and give it as long
        to end as any other that was disconnected."""
        self.disconnect()
        if self.leave_timer is not None:
            self.leave_timer.cancel()
        self.leave_timer = self.runtime.loop.call_later(self.runtime.drain.margin, self.cancel)
        return 0

    def abandon(self):
        """Answer 503 in the application's place if it has not begun to; it can send nothing any more."""
        if not (self.started or self.complete or self.disconnected or self.ended):
            self.head = None
            self.answer_error(503)
        self.disconnect()

    def describe(self):
        """Method and path, escaped so that they fit into one log line."""
        return f"{self.method} {self.raw_path.decode('ascii', 'backslashreplace')}"

    def details(self):
        """What the report tells of this request."""
        return {
            "method": self.method, "path": self.raw_path.decode("ascii", "backslashreplace"),
            "bytes_sent": self.body_sent if self.complete else max(0, self.body_sent - self.unsent()), "client": "",
        }

    # -- what the application calls -------------------------------------------------------------------------------

    cdef object bound_send(self):
        return PyMethod_New(SEND, self)

    @cython.binding(True)
    def send(self, message):
        """Queue one message; the awaitable suspends, before that, only for backpressure or fairness.

        Raises LocalProtocolError for what ASGI or HTTP does not allow, ClientDisconnected after the client has left
        (``--asgi-spec 2.3``: that is ignored).
        """
        cdef Parts parts
        cdef object kind, first, second      # references of our own: a truth test or an iteration may run any code
        cdef bytes body
        cdef bint more
        if <PyObject*>Py_TYPE(self) != <PyObject*>SENDER:
            check_sender(self)
        if lastcall_thread() != self.runtime.thread:
            return later(self.send, message)
        if not take_apart(message, &parts):
            return self._send_unusual(message)
        if parts.type == <PyObject*>BODY and PyBytes_CheckExact(<object>parts.body) and is_plain(parts.more_body) and (
            self.head is not None and not self.disconnected and not self.complete
        ):
            # What nearly every message is. Nothing here runs anybody's code before the bytes are queued.
            body = <bytes>parts.body
            more = parts.more_body == Py_True
            if more and not self.may_send(PyBytes_GET_SIZE(body)):
                return self.send_later(body, PyBytes_GET_SIZE(body))
            self.write_body(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), more)
            if PyBytes_GET_SIZE(body) >= LARGE and more:
                self.flush()             # the task may compute for long before it sends again
            return DONE
        kind = <object>parts.type
        if kind is BODY:
            first, second = <object>parts.body, <object>parts.more_body
            return self._send_body(first, second)
        if kind is START:
            first, second = <object>parts.status, <object>parts.headers
            return self._send_other(kind, message, first, second)
        return self._send_unusual(message)

    cdef object _send_unusual(self, object message):
        """A message that is no plain dict, or has other keys, or a type that is not the object seen last."""
        cdef object kind = item(message, "type")
        if is_body(kind):
            return self._send_body(item(message, "body"), item(message, "more_body"))
        return self._send_other(kind, message, item(message, "status"), item(message, "headers"))

    cdef object _send_body(self, object data, bint more):
        cdef bytes body
        if self.disconnected:     # first: a request that was refused halfway is complete as well
            return self.into_void()
        if self.head is None:
            return self.fail(LocalProtocolError("http.response.body came before http.response.start"))
        if self.complete:
            return self.nothing_sent()     # ASGI: messages after the end of the response are ignored
        if data is None:
            body = b""
        elif PyBytes_CheckExact(data):
            body = <bytes>data
        elif isinstance(data, (bytes, bytearray, memoryview)):
            body = bytes(data)
        else:
            return self.fail(
                LocalProtocolError(f"http.response.body: 'body' must be bytes, not {type(data).__name__}")
            )
        if more and not self.may_send(PyBytes_GET_SIZE(body)):
            return self.send_later(body, PyBytes_GET_SIZE(body))
        self.write_body(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), more)
        return DONE

    cdef object _send_other(self, object kind, object message, object status, object headers):
        if kind is not START and not is_start(kind):
            if kind is None:
                return self.fail(LocalProtocolError(f"an ASGI message is a dict with a 'type', not {message!r:.80}"))
            return self.fail(LocalProtocolError(f"unknown ASGI message type {kind!r}"))
        if self.disconnected:
            return self.into_void()
        if self.head is not None:
            return self.fail(LocalProtocolError("http.response.start came twice"))
        if status is None:
            return self.fail(LocalProtocolError("http.response.start has no 'status'"))
        # Held until the first body message, or for a moment: an early exception can still become a clean 500.
        self._unsuspended += 1
        if self._unsuspended <= YIELD_SENDS:
            self.head = check_head(status, headers, self.runtime.default_headers)
        else:                     # it has tried often
            try:
                self.head = check_head(status, headers, self.runtime.default_headers)
            except LocalProtocolError as error:
                return self.fail(error)
        if not self.stepping:     # from a task of the application's own (sse-starlette): no step of ours follows
            self._hold_head()
        return DONE

    # -- private --------------------------------------------------------------------------------------------------

    cdef int _hold_head(self) except -1:
        """The task waits between its head and its body: a quiet stream, whose client waits for the head."""
        if self.head_timer is None:
            self.head_timer = self.runtime.loop.call_later(HEAD_SECONDS, self._send_head)
        return 0

    def _send_head(self):
        if not (self.started or self.disconnected or self.ended or self.head is None):
            self.write_body(NULL, 0, True)


cdef object SEND = marked(HTTPCycle.send)

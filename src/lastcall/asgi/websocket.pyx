# cython: language_level=3
"""One WebSocket as an ASGI application sees it (ASGI WebSocket spec 2.5).

``WebSocketCycle`` has the messages and their order; a subclass in ``connection`` answers the handshake and carries
frames, over whatever version of HTTP they come.

The order. ``websocket.connect`` is first. Then the application accepts, or it closes (403), or it answers with a
response of its own (``websocket.http.response``). Messages that the client has sent are delivered before
``websocket.disconnect``, which says who ended it and why: the peer's code, or ours if our Close was first.

Nobody is cancelled who does not know. A handler that works, and calls neither ``receive()`` nor ``send()``, is not idle:
``--timeout-disconnect``, or in a stop the margin, begins when it was told.
"""

cimport cython
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.object cimport Py_TYPE, PyObject

import logging
import random
from collections import deque

from lastcall.asgi.awaitables cimport DONE, later
from lastcall.asgi.cycle cimport TURN, AppCycle, PyMethod_New, item, lastcall_thread, marked
from lastcall.base.errors import LocalProtocolError
from lastcall.drain.policy import Policy
from lastcall.drain.report import CLOSED_BY_POLICY
from lastcall.drain.state cimport ANNOUNCED
from lastcall.wire.websocket cimport may_close_with

cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object o)
    const char* PyUnicode_AsUTF8AndSize(object o, Py_ssize_t* size) except NULL

cdef object logger = logging.getLogger("lastcall.error")

cdef enum:
    RESTART = 1012               # registered: "service restart"; clients come back, with a delay of their own
    GONE = 1006                  # RFC 6455 7.1.5: no Close came
    LARGE = 65536                # a message that is worth a write of its own

cdef double SPREAD = 0.25            # of the time for farewells: who closes when, lest all clients come back at once

cdef str RESTART_REASON = "service restart"
cdef object DEFAULT_POLICY = Policy.CLOSE

cdef object SENDER = None        # see RECEIVER in ``asgi.cycle``


cdef int check_sender(object cycle) except -1:
    """Raise TypeError for the ``self`` of a ``send()`` that is no WebSocket's."""
    global SENDER
    if not isinstance(cycle, WebSocketCycle):
        raise TypeError(f"send() is of a WebSocket, not of {type(cycle).__name__!r}")
    SENDER = type(cycle)
    return 0


cdef class WebSocketCycle(AppCycle):
    """See the module's docstring."""

    # -- driven by the connection ---------------------------------------------------------------------------------

    cdef int feed(self, object payload) except -1:
        """A message has come: str or bytes."""
        if self.complete or self.ended:
            return 0                   # the application has closed it: nobody reads any more
        if self.first is None:
            self.first = payload
        else:
            if self.more is None:
                self.more = deque()
            self.more.append(payload)
        self.waiting += 1
        self.waiting_size += len(payload)
        return self.wake_receivers()

    cdef int lost(self, int code, str reason) except -1:
        """The client is gone, or ``code`` was said to it, or by it, and nothing more will be."""
        if not (self.disconnected or self.complete):
            self.close_code, self.close_reason = code, reason
        return self.disconnect()

    cdef int disconnect(self) except -1:
        if self.close_code == 0:
            self.close_code = GONE
        if self.senders is not None:
            self._tell()               # they are woken, and raise
        return AppCycle.disconnect(self)

    # -- what each HTTP version does its own way ------------------------------------------------------------------

    cdef int accept_handshake(self, object subprotocol, object headers) except -1:
        """Answer the handshake. Raises LocalProtocolError for what cannot be written, and nothing is written then."""
        raise NotImplementedError

    cdef int refuse_handshake(self, int status) except -1:
        """Answer it with a short error of the server's own."""
        raise NotImplementedError

    cdef int begin_denial(self, object status, object headers) except -1:
        """The head of the application's own answer. Raises LocalProtocolError."""
        raise NotImplementedError

    cdef int deny(self, bytes body, bint more) except -1:
        """The body of that."""
        raise NotImplementedError

    cdef int write_message(self, object data) except -1:
        """Queue a message: str or bytes."""
        raise NotImplementedError

    cdef int close_socket(self, int code, str reason) except -1:
        """Say Close, and end the connection in the time that it takes."""
        raise NotImplementedError

    cdef int taken(self) except -1:
        """The application has taken a message: reading may go on."""
        return 0

    cdef object client_name(self):
        """For the report."""
        return ""

    # -- what AppCycle asks ---------------------------------------------------------------------------------------

    cdef object message(self):
        if not self.connect_given:
            self.connect_given = True
            return {"type": "websocket.connect"}
        if self.first is not None:
            return self._take()
        if self.disconnected or self.complete:
            if self.turn_is_due():
                return TURN
            self._tell()
            return {"type": "websocket.disconnect", "code": self.close_code, "reason": self.close_reason}
        return None

    cdef object _take(self):
        cdef object payload = self.first
        self.first = None
        if self.more is not None:
            self.first = self.more.popleft()
            if not self.more:
                self.more = None
        self.waiting -= 1
        self.waiting_size -= len(payload)
        self.taken()
        if PyBytes_CheckExact(payload):
            return {"type": "websocket.receive", "bytes": payload}
        return {"type": "websocket.receive", "text": payload}

    cdef int _tell(self) except -1:
        """The application knows now that it is over."""
        if not self.told:
            self.told = True
            if not (self.complete or self.ended or self.cancelled):
                self.start_leave_timer()
        return 0

    cdef object into_void(self):
        self._tell()
        return AppCycle.into_void(self)

    cdef int deliver(self, object data) except -1:
        return self.deny(data, True) if self.denied else self.write_message(data)

    cdef bint leave_is_limited(self) noexcept:
        return False                   # its time begins when it is told

    cdef bint answers(self) noexcept:
        return self.accepted or self.denied

    cdef int unfinished(self, bint raised) except -1:
        if self.accepted:
            self.complete = True
            self.close_code, self.close_reason = (
                (RESTART, RESTART_REASON) if self.cancelled else (1011, "internal error") if raised else (1000, "")
            )
            return self.close_socket(self.close_code, self.close_reason)
        if self.denied:
            logger.error("%s: the application returned in the middle of its response", self.describe())
            return self.give_up()
        if not raised and not self.cancelled:
            logger.error("%s: the application returned without an answer to the handshake", self.describe())
        return self._refuse(503 if self.cancelled else 500)

    cdef int cancel_timers(self) except -1:
        if self.handshake_timer is not None:
            self.handshake_timer.cancel()
            self.handshake_timer = None
        return AppCycle.cancel_timers(self)

    cdef int _refuse(self, int status) except -1:
        self.denied = True
        return self.refuse_handshake(status)

    def handshake_is_late(self):
        """``--ws-handshake-timeout`` is over: the client gets 503, and the application is told."""
        self.handshake_timer = None
        if not (self.accepted or self.denied or self.disconnected or self.ended):
            logger.info("%s: the application did not answer the handshake in time", self.describe())
            self._refuse(503)
            self.disconnect()

    # -- the drain ------------------------------------------------------------------------------------------------

    @property
    def kind(self):
        """``websocket``; ``background`` once the application has closed it."""
        return "background" if self.complete else "websocket"

    @property
    def policy(self):
        """The application's word, else that of the options, else *close*."""
        if self._chosen or self.runtime.policies is None:
            return self._chosen or DEFAULT_POLICY
        from urllib.parse import unquote  # noqa: PLC0415 - for a stop with such options only
        path = unquote(self.raw_path.decode("latin-1"), errors="replace")
        return self.runtime.policies.policy(path) or DEFAULT_POLICY

    cdef int notified(self) except -1:
        """A stop. Whoever is not accepted yet comes again elsewhere, later: behind 503 clients wait, behind an accepted
        handshake they do not. The others are closed at moments of their own, lest all come back at once."""
        AppCycle.notified(self)
        if self.ended or self.disconnected or self.complete or self.denied:
            return 0
        if not self.accepted:
            self._refuse(503)
            return self.disconnect()
        if self.policy == Policy.CLOSE:
            wait = self.runtime.drain.farewell * (1.0 - SPREAD * random.random())
            self.runtime.loop.call_later(wait, self.disconnect_if_closing)
        return 0

    @property
    def disconnectable(self):
        """Whether it is open: its client, and the application, are to be told."""
        return not (self.complete or self.disconnected or self.denied)

    def disconnect_response(self, str outcome):
        """Close it with 1012 if it is open; return whether it was. A handshake that is under way is answered 503."""
        if self.ended or not self.disconnectable:
            return False
        self.outcome = outcome
        if not self.accepted:
            self._refuse(503)
            self.disconnect()
            return True
        self.close_code, self.close_reason = RESTART, RESTART_REASON
        self.close_socket(RESTART, RESTART_REASON)
        self.disconnect()
        return True

    def abandon(self):
        """The application is given up."""
        if not (self.accepted or self.denied or self.disconnected or self.ended):
            self._refuse(503)
        elif self.accepted and not (self.complete or self.disconnected):
            self.close_code, self.close_reason = RESTART, RESTART_REASON
            self.close_socket(RESTART, RESTART_REASON)
        self.disconnect()

    def describe(self):
        """``WebSocket`` and the path, escaped so that they fit into one log line."""
        return f"WebSocket {self.raw_path.decode('ascii', 'backslashreplace')}"

    def details(self):
        """What the report tells of it."""
        return {
            "method": "WebSocket", "path": self.raw_path.decode("ascii", "backslashreplace"),
            "bytes_sent": self.bytes_sent, "client": self.client_name(),
        }

    # -- what the application calls -------------------------------------------------------------------------------

    cdef object bound_send(self):
        return PyMethod_New(SEND, self)

    @cython.binding(True)
    def send(self, message):
        """Queue one message; the awaitable suspends, before that, only for backpressure or fairness.

        Raises LocalProtocolError for what ASGI or WebSockets do not allow, ClientDisconnected after the client has left.
        """
        cdef object kind
        if <PyObject*>Py_TYPE(self) != <PyObject*>SENDER:
            check_sender(self)
        if lastcall_thread() != self.runtime.thread:
            return later(self.send, message)
        kind = item(message, "type")
        if kind == "websocket.send":
            return self._send_data(message)
        if kind == "websocket.accept":
            return self._accept(message)
        if kind == "websocket.close":
            return self._send_close(message)
        if kind == "websocket.http.response.start" or kind == "websocket.http.response.body":
            return self._send_denial(kind, message)
        if kind is None:
            return self.fail(LocalProtocolError(f"an ASGI message is a dict with a 'type', not {message!r:.80}"))
        return self.fail(LocalProtocolError(f"unknown ASGI message type {kind!r}"))

    cdef object _send_data(self, object message):
        cdef object data = item(message, "text"), binary
        cdef Py_ssize_t n
        if self.disconnected:
            return self.into_void()
        if not self.accepted or self.complete:
            return self.fail(LocalProtocolError(
                "websocket.send came after websocket.close" if self.complete else
                "websocket.send came before websocket.accept"
            ))
        if data is None:
            data = item(message, "bytes")
            if data is None:
                return self.fail(LocalProtocolError("websocket.send has neither 'text' nor 'bytes'"))
            if not PyBytes_CheckExact(data):
                if not isinstance(data, (bytes, bytearray, memoryview)):
                    return self.fail(
                        LocalProtocolError(f"websocket.send: 'bytes' must be bytes, not {type(data).__name__}")
                    )
                data = bytes(data)
            n = PyBytes_GET_SIZE(data)
        else:
            binary = item(message, "bytes")
            if binary is not None:
                return self.fail(LocalProtocolError("websocket.send has both 'text' and 'bytes'"))
            if not PyUnicode_CheckExact(data):
                if not isinstance(data, str):
                    return self.fail(
                        LocalProtocolError(f"websocket.send: 'text' must be a str, not {type(data).__name__}")
                    )
                data = str(data)
            try:
                PyUnicode_AsUTF8AndSize(data, &n)
            except UnicodeEncodeError as error:
                return self.fail(LocalProtocolError(f"websocket.send: 'text' cannot be UTF-8: {error.reason}"))
        if not self.may_send(n):
            return self.send_later(data, n)
        self.write_message(data)
        if n >= LARGE:
            self.flush()
        return DONE

    cdef object _accept(self, object message):
        if self.disconnected:
            return self.into_void()
        if self.accepted or self.denied or self.denial is not None:
            return self.fail(LocalProtocolError("websocket.accept came after the handshake had its answer"))
        self.accept_handshake(item(message, "subprotocol"), item(message, "headers"))
        self.accepted = True
        if self.handshake_timer is not None:
            self.handshake_timer.cancel()
            self.handshake_timer = None
        self.response_begun()
        if self.runtime.signal.is_set:         # while the stop went on it was answered: as all the others
            self.notified()
        return DONE

    cdef object _send_close(self, object message):
        cdef object code = item(message, "code"), reason = item(message, "reason")
        if self.disconnected:
            return self.nothing_sent()         # what it wants is so already
        if self.complete or self.denied or self.denial is not None:
            return self.fail(LocalProtocolError("websocket.close came after the end"))
        if not self.accepted:
            self.complete = True
            self.close_code = GONE
            self._refuse(403)                  # ASGI: closing before accepting is a rejection
            return DONE
        code = 1000 if code is None else code
        if type(code) is not int and not (isinstance(code, int) and not isinstance(code, bool)) or not (
            may_close_with(code) or code == 1005
        ):
            return self.fail(LocalProtocolError(f"websocket.close: {code!r} is no code that a Close may carry"))
        if reason is not None and not isinstance(reason, str):
            return self.fail(LocalProtocolError(f"websocket.close: 'reason' must be a str, not {type(reason).__name__}"))
        self.complete = True
        self.close_code, self.close_reason = int(code), str(reason or "")
        self.close_socket(self.close_code, self.close_reason)
        self.release_senders()
        self.wake_receivers()
        return DONE

    cdef object _send_denial(self, object kind, object message):
        """ASGI extension ``websocket.http.response``: a response of the application's own in place of the handshake's."""
        cdef object body
        cdef bint more
        if self.disconnected:
            return self.into_void()
        if self.accepted:
            return self.fail(LocalProtocolError(f"{kind} came after websocket.accept"))
        if kind == "websocket.http.response.start":
            if self.denial is not None or self.denied:
                return self.fail(LocalProtocolError(f"{kind} came twice"))
            if item(message, "status") is None:
                return self.fail(LocalProtocolError(f"{kind} has no 'status'"))
            self.begin_denial(item(message, "status"), item(message, "headers"))
            self.denial = True
            return DONE
        if self.denial is None:
            return self.fail(LocalProtocolError(f"{kind} came before websocket.http.response.start"))
        if self.complete:
            return self.nothing_sent()
        body = item(message, "body")
        if body is None:
            body = b""
        elif not isinstance(body, (bytes, bytearray, memoryview)):
            return self.fail(LocalProtocolError(f"{kind}: 'body' must be bytes, not {type(body).__name__}"))
        more = bool(item(message, "more_body"))
        if self.disconnected:                  # the truth test has run anybody's code
            return self.into_void()
        self.denied = True
        if self.handshake_timer is not None:
            self.handshake_timer.cancel()
            self.handshake_timer = None
        self.response_begun()
        if not more:
            self.complete = True
            self.close_code = GONE
        body = bytes(body)
        if more and not self.may_send(PyBytes_GET_SIZE(body)):
            return self.send_later(body, PyBytes_GET_SIZE(body))
        self.deny(body, more)
        return DONE


cdef object SEND = marked(WebSocketCycle.send)

# cython: language_level=3
# length: the cycle, and the awaitables and the coroutine that look into it at every step; apart they would cost a call.
"""One HTTP request and its response as an ASGI application sees them (ASGI HTTP spec 2.5).

``HTTPCycle`` is the half that every HTTP version shares: ``receive``, ``send``, the order of messages, what an
exception means. A subclass in ``connection`` puts bytes on its own wire by overriding the methods below "what each HTTP
version does its own way". The cycle is also the running task: it is running work from the head to the task's end.

A message is taken out of the cycle when the awaitable of ``receive()`` is stepped, not when ``receive()`` is called: a
``receive()`` that is cancelled, in whatever moment, loses nothing.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_GetItemWithError
from cpython.ref cimport PyObject
from libc.math cimport INFINITY

import asyncio
import logging
from asyncio import CancelledError

from lastcall.base.errors import ClientDisconnected, LocalProtocolError
from lastcall.asgi.awaitables cimport DONE, Done, OneTurn, later, raise_thrown
from lastcall.asgi.runtime cimport AppRuntime
from lastcall.notice.notice cimport CURRENT, WANTED, DrainNotice
from lastcall.drain.policy import Policy
from lastcall.wire.response cimport ResponseHead, encode_response

cdef extern from "Python.h":
    cdef enum:
        PYGEN_RETURN
        PYGEN_NEXT
    int PyIter_Send(PyObject* iterator, PyObject* value, PyObject** result) except -1
    object PyContext_Copy(object context)
    object PyContextVar_Set(object variable, object value)
    object PyObject_Call(object callable, tuple arguments, dict keywords)
    bint PyCoro_CheckExact(object o)
    unsigned long PyThread_get_thread_ident() noexcept
    void Py_DECREF(PyObject* o)

cdef object logger = logging.getLogger("lastcall.error")
cdef object Task = asyncio.Task
cdef object APP = "ASGI application"
cdef object ENDED = object()
cdef int CLOSE = Policy.CLOSE

cdef double HEAD_SECONDS = 0.005     # a head waits so long for its body: both in one packet are cheaper
cdef int MOST_EXCEPTIONS = 1000      # that are looked at to tell what one came of


cdef bint is_disconnect(object exc):
    """Whether an exception is, or came of, a ClientDisconnected; a group is one if all that is in it are."""
    return _comes_of(exc, ClientDisconnected, True, {})


cdef bint _follows_a_cancel(object exc):
    """Whether an exception was raised while a CancelledError was handled."""
    return _comes_of(exc, CancelledError, False, {})


cdef bint _comes_of(object exc, object kind, bint all_of_a_group, dict known):
    """Whether an exception is, or came of, one of a kind, or of a group that has one, or that has nothing else.

    ``known`` has what was found out on the way, by id: exceptions may lead to each other in a circle. Starlette's
    BaseHTTPMiddleware makes one the cause of itself, by way of the group that it came in.
    """
    cdef bint found = False
    cdef list path = []
    while exc is not None and len(known) < MOST_EXCEPTIONS:
        if id(exc) in known:
            found = known[id(exc)]
            break
        known[id(exc)] = False             # as long as it is being looked at
        path.append(exc)
        if isinstance(exc, kind):
            found = True
            break
        if isinstance(exc, BaseExceptionGroup):
            found = all_of_a_group
            for inner in exc.exceptions:
                if _comes_of(inner, kind, all_of_a_group, known) != all_of_a_group:
                    found = not all_of_a_group
                    break
            if found or all_of_a_group:
                break
        exc = exc.__cause__ if exc.__cause__ is not None else exc.__context__
    if found:
        for seen in path:
            known[id(seen)] = True
    return found


cdef object add_waiter(object waiting, object future):
    """One future, or a list of them: nearly always there is at most one task that waits. Those of cancelled tasks are
    dropped, so that polling with a timeout does not collect them."""
    if waiting is None:
        return future
    if type(waiting) is not list:
        return future if waiting.done() else [waiting, future]
    waiting = [one for one in waiting if not one.done()]
    waiting.append(future)
    return waiting


cdef int wake(object waiting) except -1:
    if type(waiting) is list:
        for future in <list>waiting:
            if not future.done():
                future.set_result(None)
    elif not waiting.done():
        waiting.set_result(None)
    return 0


cdef inline object item(object message, object key):
    """``message.get(key)``. A message may be any mapping; nearly all are plain dicts."""
    cdef PyObject* found
    if PyDict_CheckExact(message):
        found = PyDict_GetItemWithError(message, key)
        return None if found is NULL else <object>found
    try:
        return message[key]
    except (KeyError, TypeError):
        return None


cdef class HTTPCycle(DrainNotice):
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
        return self._wake_receivers()

    cdef int feed_end(self) except -1:
        """The whole body has come."""
        self.body_complete = True
        return self._wake_receivers()

    cdef int disconnect(self) except -1:
        """The client has left: ``receive()`` says so, ``send()`` raises, whoever waits in either is woken."""
        if self.disconnected:
            return 0
        self.disconnected = True
        if self.head is not None and not self.complete and not self.ended:
            self._expect_end()
        self._wake_receivers()
        return self.wake_sender()

    cdef int start(self) except -1:
        """Start the application's task, in a context of its own (never inside another request's ``send()``)."""
        cdef AppCoroutine coro = AppCoroutine.__new__(AppCoroutine)
        cdef object context = PyContext_Copy(self.runtime.context)
        coro._cycle = self
        self.runtime.thread = PyThread_get_thread_ident()
        self.runtime.tasks.add(self, self.runtime.clock())
        # One dict of keyword arguments for all: Task() does not keep it, and no task starts inside another's start.
        self.runtime.task_arguments["context"] = context
        task = PyObject_Call(Task, (coro,), self.runtime.task_arguments)
        self.runtime.task_arguments["context"] = None
        if not self.ended:
            self.task = task
        return 0

    cdef int wake_sender(self) except -1:
        waiting = self.send_waiter
        if waiting is not None:
            self.send_waiter = None
            wake(waiting)
        return 0

    # -- what each HTTP version does its own way ------------------------------------------------------------------

    cdef int write_body(self, const char* data, Py_ssize_t n, bint more) except -1:
        """Queue the head if it is still held, then the body bytes, then, unless ``more``, the end."""
        raise NotImplementedError

    cdef int wants_body(self) except -1:
        """The application waits for the body: send 100 Continue if the client waits for that, read on."""
        return 0

    cdef int body_taken(self, Py_ssize_t n) except -1:
        """The application took ``n`` buffered body bytes: reading may go on."""
        return 0

    cdef bint congested(self) noexcept:
        """Whether ``send()`` should wait until the client has read more."""
        return False

    cdef bint must_yield(self) noexcept:
        """Whether the application has sent so much without suspending that the loop needs a turn."""
        return False

    cdef int answer_error(self, int status) except -1:
        """Answer with a short error of the server's own. Called only while nothing of the response is queued."""
        raise NotImplementedError

    cdef int abort(self) except -1:
        """End a response that has begun, in a way that no client takes for complete."""
        raise NotImplementedError

    cdef int task_ended(self) except -1:
        """The task has ended and left the running tasks."""
        return 0

    # -- the drain -------------------------------------------------------------------------------------------------------

    def __init__(self):
        raise TypeError("the server makes these, one per request")

    cdef object signal(self):
        return self.runtime.signal

    @property
    def policy(self):
        """The policy of this response: the application's word, else that of ``--drain-close`` and ``--drain-finish``."""
        if self._chosen or self.runtime.policies is None:
            return self._chosen
        from urllib.parse import unquote  # noqa: PLC0415 - for a stop with such options only
        return self.runtime.policies.policy(unquote(self.raw_path.decode("latin-1"), errors="replace"))

    def disconnect_if_closing(self):
        """The time for farewells is over: disconnect the response if its policy is *close*. From any thread."""
        if PyThread_get_thread_ident() != self.runtime.thread:
            try:
                self.runtime.loop.call_soon_threadsafe(self.disconnect_if_closing)
            except RuntimeError:           # the loop is closed: all is over
                pass
        elif self.policy == CLOSE:
            self.disconnect_response("closed by policy")

    def disconnect_response(self, str outcome):
        """Disconnect the response if it has started and is not finished; return whether it was."""
        if self.head is None or self.complete or self.disconnected or self.ended:
            return False
        self.outcome = outcome
        if not self.started:
            self.write_body(NULL, 0, True)
        self.abort()
        return True

    def _overstayed(self):
        """The client is gone, or the response was cut, and the task goes on: end it."""
        self.leave_timer = None
        if not self.ended and self.task is not None:
            logger.debug("%s: still running without its client: cancelled", self.describe())
            self.cancel()

    # -- what a stop asks -----------------------------------------------------------------------------------------------

    @property
    def kind(self):
        """``background`` after the response, ``stream`` within it, ``request`` before."""
        return "background" if self.complete else "stream" if self.head is not None else "request"

    @property
    def gone(self):
        """Whether the client has left, or was disconnected."""
        return self.disconnected

    @property
    def whole(self):
        """Whether the application has finished its response."""
        return self.complete and not self.incomplete

    def details(self):
        """What the report tells of this request."""
        return {
            "method": self.method, "path": self.raw_path.decode("ascii", "backslashreplace"),
            "bytes_sent": self.body_sent, "client": "",
        }

    def cancel(self):
        """Cancel the application's task, by the server's own order: no traceback will be logged for it.

        Once: a second CancelledError would hit the cleaning up that the first has begun.
        """
        if not self.cancelled:
            self.cancelled = True
            if self.task is not None:
                self.task.cancel()

    def abandon(self):
        """Answer 503 in the application's place if it has not begun to; it can send nothing any more."""
        if not (self.started or self.complete or self.disconnected or self.ended):
            self.head = None
            self.answer_error(503)
        self.disconnect()

    def describe(self):
        """Method and path, escaped so that they fit into one log line."""
        return f"{self.method} {self.raw_path.decode('ascii', 'backslashreplace')}"

    # -- what the application calls -------------------------------------------------------------------------------

    def receive(self):
        """An awaitable of the next ``http.request`` or ``http.disconnect``; it does not suspend if that is known."""
        cdef Receive awaitable = Receive.__new__(Receive)
        awaitable._cycle = self
        return awaitable

    def send(self, message):
        """Queue one message; the awaitable suspends only for backpressure or fairness.

        Raises LocalProtocolError for what ASGI or HTTP does not allow, ClientDisconnected after the client has left.
        """
        cdef bytes body
        cdef object data, kind
        cdef bint more
        cdef Writable waiting
        if PyThread_get_thread_ident() != self.runtime.thread:
            return later(self.send, message)
        kind = item(message, "type")
        if kind is None:
            raise LocalProtocolError(f"an ASGI message is a dict with a 'type', not {message!r:.80}")
        if kind == "http.response.body":
            if self.head is None:
                raise LocalProtocolError("http.response.body came before http.response.start")
            if self.disconnected:     # first: a request that was refused halfway is complete as well
                raise ClientDisconnected("the client has disconnected")
            if self.complete:
                return DONE           # ASGI: messages after the end of the response are ignored
            data = item(message, "body")
            if data is None:
                body = b""
            elif PyBytes_CheckExact(data):
                body = <bytes>data
            elif isinstance(data, (bytes, bytearray, memoryview)):
                body = bytes(data)
            else:
                raise LocalProtocolError(f"http.response.body: 'body' must be bytes, not {type(data).__name__}")
            more = item(message, "more_body")
            self.write_body(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), more)
            if self.disconnected or self.complete:
                return DONE
            if self.congested():
                waiting = Writable.__new__(Writable)
                waiting._cycle = self
                return waiting
            if self.must_yield():
                return OneTurn.__new__(OneTurn)
            return DONE
        if kind == "http.response.start":
            if self.disconnected:
                raise ClientDisconnected("the client has disconnected")
            if self.head is not None:
                raise LocalProtocolError("http.response.start came twice")
            status = item(message, "status")
            if status is None:
                raise LocalProtocolError("http.response.start has no 'status'")
            # Held until the first body message, or for a moment: an early exception can still become a clean 500.
            self.head = encode_response(status, item(message, "headers"), self.runtime.default_headers)
            if not self.stepping:     # from a task of the application's own (sse-starlette): no step of ours follows
                self._hold_head()
            return DONE
        raise LocalProtocolError(f"unknown ASGI message type {kind!r}")

    # -- private --------------------------------------------------------------------------------------------------

    cdef object _message(self):
        """The next message, or None if the application has to wait for it."""
        cdef object body
        cdef Py_ssize_t n
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
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
        return None

    cdef int _wake_receivers(self) except -1:
        waiting = self.receive_waiter
        if waiting is not None:
            self.receive_waiter = None
            wake(waiting)
        return 0

    cdef int _hold_head(self) except -1:
        """The task waits between its head and its body: a quiet stream, whose client waits for the head."""
        if self.head_timer is None:
            self.head_timer = self.runtime.loop.call_later(HEAD_SECONDS, self._send_head)
        return 0

    def _send_head(self):
        if not (self.started or self.disconnected or self.ended or self.head is None):
            self.write_body(NULL, 0, True)

    cdef int _expect_end(self) except -1:
        """The client is gone, or is treated so: the task has a while to notice. Frameworks need not look at
        ``receive()`` at all (Starlette does not, at spec_version 2.4 and above), and a quiet stream never sends."""
        cdef double seconds = self.runtime.timeout_disconnect
        if self.outcome is not None:
            seconds = self.runtime.signal.margin
        if seconds < INFINITY:
            self.leave_timer = self.runtime.loop.call_later(seconds, self._overstayed)
        return 0

    cdef int _ended(self, object exc) except -1:
        """The application returned (``exc`` None) or raised."""
        cdef bint unstarted = not self.started
        self.ended = True
        self.incomplete = not self.complete
        self._callbacks = None
        self.task = None
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
        if self.leave_timer is not None:
            self.leave_timer.cancel()
            self.leave_timer = None
        self.scope = None
        try:
            if exc is not None:
                self._log_failure(exc)
            if self.disconnected or self.complete:
                pass
            elif unstarted:
                if exc is None and not self.cancelled:
                    logger.error("%s: the application returned without a response", self.describe())
                self.head = None
                self.answer_error(503 if self.cancelled else 500)
            else:
                if exc is None:
                    # In a stop it may mean to: sse-starlette ends its streams so when it sees one coming.
                    logger.log(
                        logging.INFO if self.runtime.signal.is_set else logging.ERROR,
                        "%s: the application returned in the middle of its response", self.describe(),
                    )
                self.abort()
        finally:
            self.runtime.tasks.remove(self)
            self.task_ended()
        return 0

    cdef int _log_failure(self, object exc) except -1:
        if isinstance(exc, CancelledError) and self.cancelled:
            return 0                                  # our own order
        if is_disconnect(exc):
            return 0
        if self.cancelled and _follows_a_cancel(exc):
            # What our own order led to is one line at most: cleaning up has failed, or the cancel was translated.
            logger.error("%s: %s(%s) while being cancelled", self.describe(), type(exc).__name__, exc)
            return 0
        if isinstance(exc, SystemExit):
            logger.error("%s: the application called sys.exit(%r); only this request ends", self.describe(), exc.code)
        elif isinstance(exc, CancelledError):
            logger.error("%s: the application's task was cancelled, not by the server", self.describe())
        else:
            logger.error("Exception in ASGI application: %s", self.describe(), exc_info=exc)
        return 0


@cython.final
@cython.freelist(64)
cdef class AppCoroutine:
    """The coroutine of a request's task: the application's own, with the end of it handled here.

    It calls the application in the task's first step, passes every step on, and turns whatever comes out at the end
    into a response or a log line. SystemExit and KeyboardInterrupt stop here too: asyncio would let them out of the
    loop. A compiled object in place of an ``async def`` wrapper saves a frame per step.
    """

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef object yielded = self._step(False, None, None, None)
        if yielded is ENDED:
            raise StopIteration           # in a __next__ this sets no exception at all, which is what makes it cheap
        return yielded

    def send(self, value):
        """Coroutine protocol."""
        cdef object yielded = self._step(False, value, None, None)
        if yielded is ENDED:
            raise StopIteration
        return yielded

    def throw(self, kind, value=None, traceback=None):
        """Coroutine protocol."""
        cdef object yielded = self._step(True, kind, value, traceback)
        if yielded is ENDED:
            raise StopIteration
        return yielded

    def close(self):
        """Coroutine protocol."""
        if self._coro is not None:
            self._coro.close()

    cdef object _step(self, bint throwing, object a, object b, object c):
        """Pass one step on; what the application's coroutine yields, or ENDED."""
        cdef PyObject* result = NULL
        cdef int outcome
        cdef HTTPCycle cycle = self._cycle
        cdef dict scope
        cdef object exc = None
        cdef object value
        try:
            if self._coro is None:
                if throwing:
                    raise_thrown(a, b, c)
                scope, cycle.scope = cycle.scope, None
                if WANTED:
                    PyContextVar_Set(CURRENT, cycle)
                coro = cycle.runtime.app(scope, cycle.receive, cycle.send)
                scope = None
                if not PyCoro_CheckExact(coro):
                    try:
                        coro = coro.__await__()
                    except AttributeError:
                        raise TypeError(
                            f"an ASGI application must return an awaitable, not {type(coro).__name__}"
                        ) from None
                self._coro = coro
                a = None
            elif cycle.complete:
                cycle.ran_after_response = True
            cycle.stepping = True
            if throwing:
                value = self._coro.throw(a) if b is None else self._coro.throw(a, b, c)
                outcome = PYGEN_NEXT
            else:
                outcome = PyIter_Send(<PyObject*>self._coro, <PyObject*>a, &result)
                value = <object>result      # yielded, or what the application returned: ASGI gives that no meaning
                Py_DECREF(result)
            cycle.stepping = False
            if outcome == PYGEN_NEXT:
                if cycle.head is not None and not cycle.started:
                    cycle._hold_head()
                return value
        except StopIteration:
            pass
        except BaseException as error:
            exc = error
        self._coro = None
        cycle._ended(exc)
        return ENDED

    # What debuggers, ``Task.get_stack()`` and ``repr(task)`` ask a coroutine for.

    @property
    def notice(self):
        """The request's DrainNotice: ``lastcall.drain_notice()`` looks here."""
        return self._cycle

    @property
    def __name__(self):
        """The application's own coroutine's name."""
        return getattr(self._coro, "__name__", APP)

    @property
    def __qualname__(self):
        """The application's own coroutine's qualified name."""
        return getattr(self._coro, "__qualname__", APP)

    @property
    def cr_frame(self):
        """The application's own coroutine's frame, or None."""
        return getattr(self._coro, "cr_frame", None)

    @property
    def cr_code(self):
        """The application's own coroutine's code, or None."""
        return getattr(self._coro, "cr_code", None)

    @property
    def cr_running(self):
        """Whether the application's own coroutine is being executed."""
        return getattr(self._coro, "cr_running", False)

    @property
    def cr_await(self):
        """What the application's own coroutine waits for, or None."""
        return getattr(self._coro, "cr_await", None)


@cython.final
@cython.freelist(64)
cdef class Receive:
    """The awaitable of one ``receive()``: it takes a message in the step that returns it, and in no other."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self._advance()

    def send(self, value):
        """Coroutine protocol."""
        return self._advance()

    def throw(self, kind, value=None, traceback=None):
        """Coroutine protocol: a cancelled receive takes no message."""
        self._done = True
        self._iterator = None
        if self._future is not None:
            self._future.cancel()
            self._future = None
        raise_thrown(kind, value, traceback)

    def close(self):
        """Coroutine protocol."""
        self._done = True
        self._iterator = None

    cdef object _advance(self):
        cdef HTTPCycle cycle = self._cycle
        cdef object message, future
        if self._done:
            raise RuntimeError("cannot reuse an already awaited receive()")
        while True:
            if self._iterator is not None:
                try:
                    return next(self._iterator)
                except StopIteration:
                    self._iterator = None
                    self._future = None
                except BaseException:
                    self._done = True
                    self._iterator = None
                    raise
            message = cycle._message()
            if message is not None:
                self._done = True
                raise StopIteration(message)
            cycle.wants_body()
            message = cycle._message()      # reading on may have found that the client has left
            if message is not None:
                self._done = True
                raise StopIteration(message)
            future = cycle.runtime.loop.create_future()
            cycle.receive_waiter = add_waiter(cycle.receive_waiter, future)
            self._future = future
            self._iterator = future.__await__()


@cython.final
@cython.freelist(16)
cdef class Writable:
    """The awaitable of a ``send()`` that has to wait until the client has read more, or has left."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self._advance()

    def send(self, value):
        """Coroutine protocol."""
        return self._advance()

    def throw(self, kind, value=None, traceback=None):
        """Coroutine protocol."""
        self._iterator = None
        if self._future is not None:
            self._future.cancel()
            self._future = None
        raise_thrown(kind, value, traceback)

    def close(self):
        """Coroutine protocol."""
        self._iterator = None
        self._future = None

    cdef object _advance(self):
        cdef HTTPCycle cycle = self._cycle
        while True:
            if self._iterator is not None:
                try:
                    return next(self._iterator)
                except StopIteration:
                    self._iterator = None
                    self._future = None
            if cycle.disconnected:
                raise ClientDisconnected("the client has disconnected")
            if cycle.complete or not cycle.congested():
                raise StopIteration
            self._future = cycle.runtime.loop.create_future()
            cycle.send_waiter = add_waiter(cycle.send_waiter, self._future)
            self._iterator = self._future.__await__()

# cython: language_level=3
# length: the run of the application, its coroutine and the awaitables that it gets are one machine over shared state.
"""One run of an ASGI application, whatever protocol carries it: its task, what it waits for, how it ends.

``AppCycle`` knows no protocol. ``HTTPCycle`` (``asgi.http``) adds the messages of HTTP, and a subclass of that in
``connection`` puts bytes on its own wire. A WebSocket's cycle would stand beside ``HTTPCycle``. A cycle is also the running
task itself, until the application's task has ended.

A message is taken out of the cycle when the awaitable of ``receive()`` is stepped, not when ``receive()`` is called: a
``receive()`` that is cancelled, in whatever moment, loses nothing.
"""

cimport cython
from cpython.dict cimport PyDict_CheckExact, PyDict_GetItemWithError
from cpython.object cimport Py_TYPE
from cpython.ref cimport PyObject
from libc.math cimport INFINITY

import asyncio
import inspect
import logging
from asyncio import CancelledError
from collections import deque

from lastcall.asgi.awaitables cimport DONE, ENDED, Awaitable, OneTurn, add_waiter, failing, wake
from lastcall.asgi.failures import client_left, follows_a_cancel, is_disconnect
from lastcall.asgi.runtime cimport EAGER, AppRuntime
from lastcall.drain.policy import Policy
from lastcall.drain.report import CLOSED_BY_POLICY
from lastcall.notice.notice cimport CURRENT, WANTED, notice_of

cdef extern from "Python.h":
    cdef enum:
        PYGEN_ERROR
        PYGEN_NEXT
    int PyIter_Send(PyObject* iterator, PyObject* value, PyObject** result)
    object PyContext_Copy(object context)
    object PyContextVar_Set(object variable, object value)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyObject* call_type "PyObject_Call"(object kind, tuple arguments, dict keywords)
    PyObject* PyObject_Vectorcall(object callable, PyObject** arguments, size_t count, PyObject* names)
    bint PyCoro_CheckExact(object o)
    void Py_DECREF(PyObject* o)

cdef extern from * nogil:
    """
    /* An exception is set: for a function that returns so, Cython takes it up. */
    static int lastcall_raise(void) { return -1; }
    """
    int lastcall_raise() except -1

cdef object logger = logging.getLogger("lastcall.error")
cdef object Task = asyncio.Task
cdef object APP = "ASGI application"
TURN = object()
cdef int CLOSE = Policy.CLOSE

cdef enum:
    YIELD_BYTES = 65536          # after so many bytes, or sends, without a suspension the next one gives the loop a turn
    FRAMING = 32                 # bytes that a protocol may put around what was sent
    LOOKS = 4                    # at whether a half-closed client still reads, while --timeout-disconnect lasts

cdef double CLOCK_GRAIN = 1e-6   # two readings of the loop's clock that are to be equal may differ by so much


cdef object marked(object function):
    """``function``, a compiled one with a ``__dict__``, marked as a coroutine function for whoever asks ``inspect``.

    What it returns can be awaited, and asgiref warns, at each call, of what is not marked so. Before Python 3.12 there
    is nothing in ``inspect`` for it, and ``asyncio.iscoroutinefunction`` is what is asked.
    """
    if hasattr(inspect, "markcoroutinefunction"):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine
    return function


cdef object raised():
    """The exception that is set, which is none any more then."""
    try:
        lastcall_raise()
    except BaseException as error:
        return error


cdef object item(object message, object key):
    """``message.get(key)``. A message may be any mapping; nearly all are plain dicts."""
    cdef PyObject* found
    if PyDict_CheckExact(message):
        found = PyDict_GetItemWithError(message, key)
        return None if found is NULL else <object>found
    try:
        return message[key]
    except (KeyError, TypeError):
        return None


# A bound function takes anything for its ``self``, unlike a method descriptor, and the application has it as the
# ``__func__`` of what it was given. So each looks at the type, which nearly always is the one that it saw last.
cdef object RECEIVER = None


cdef int check_receiver(object cycle) except -1:
    """Raise TypeError for the ``self`` of a ``receive()`` that is no cycle."""
    global RECEIVER
    if not isinstance(cycle, AppCycle):
        raise TypeError(f"receive() is of a request, not of {type(cycle).__name__!r}")
    RECEIVER = type(cycle)
    return 0


cdef class AppCycle(RunningTask):
    """See the module's docstring. Connections drive it through its C methods."""

    def __init__(self):
        raise TypeError("the server makes these, one per request")

    # -- driven by the connection ---------------------------------------------------------------------------------

    cdef int start(self) except -1:
        """Start the application's task, in a context of its own (never inside another request's ``send()``)."""
        cdef AppRuntime runtime = self.runtime
        cdef AppCoroutine coro = AppCoroutine.__new__(AppCoroutine)
        cdef PyObject* task
        coro.owner = self
        runtime.thread = lastcall_thread()
        runtime.tasks.add(self, self.since)
        if not EAGER:
            runtime.tasks.steps_due += 1
        # One dict of keyword arguments for all: Task() does not keep it, and no task starts inside another's start.
        runtime.task_arguments["context"] = PyContext_Copy(runtime.context)
        task = call_type(Task, (coro,), runtime.task_arguments)
        runtime.task_arguments["context"] = None
        if task == NULL:
            runtime.tasks.remove(self)     # what never ran must not be waited for
            raise raised()
        if not self.ended:
            self.task = <object>task
        Py_DECREF(task)
        return 0

    cdef int disconnect(self) except -1:
        """The client has left: ``receive()`` says so, ``send()`` raises, whoever waits in either is woken."""
        if self.disconnected:
            return 0
        self.disconnected = True
        if not self.ended:
            self.runtime.left_open = True
            if not (self.complete or self.cancelled) and self.leave_is_limited():
                self.start_leave_timer()
        self.wake_receivers()
        return self.release_senders()

    cdef int wake_sender(self) except -1:
        """Little is left to write: the first of those who wait in ``send()`` has its turn, and wakes the next."""
        cdef Sending first
        if self.senders is not None:
            first = <Sending>self.senders[0]
            if first.future is not None:
                self.runtime.tasks.steps_due += 1
                wake(first.future)
        return 0

    cdef int release_senders(self) except -1:
        """Nothing will be sent any more: whoever waits in ``send()`` need not."""
        if self.senders is not None:
            for waiting in self.senders:
                if (<Sending>waiting).future is not None:
                    self.runtime.tasks.steps_due += 1
                    wake((<Sending>waiting).future)
        return 0

    cdef int wake_receivers(self) except -1:
        waiting = self.receive_waiter
        if waiting is not None:
            self.receive_waiter = None
            self.runtime.tasks.steps_due += 1
            wake(waiting)
        return 0

    # -- what each protocol does its own way ----------------------------------------------------------------------

    cdef object message(self):
        """The next message; None if the application has to wait for it; TURN if the loop needs a turn before it."""
        return None

    cdef int wants_input(self) except -1:
        """The application waits for a message: read on."""
        return 0

    cdef Py_ssize_t unsent(self) noexcept:
        """Bytes that were sent to this client and are still here."""
        return 0

    cdef int flush(self) except -1:
        """Hand to the kernel what it takes of that."""
        return 0

    cdef int deliver(self, object data) except -1:
        """Queue a message's content, which had to wait. The client is there, and the response not complete."""
        return 0

    cdef object bound_send(self):
        """``self.send``, which is what the application calls."""
        return self.send

    cdef bint half_closed(self) noexcept:
        """Whether the client has said by a FIN that it sends no more, while what is sent to it is still delivered."""
        return False

    cdef bint client_takes(self) noexcept:
        """Whether bytes went to the client, or were acknowledged by it, since the last call."""
        return False

    cdef int give_up(self) except -1:
        """End what is sent to the client, visibly incomplete if it has begun: nobody will send the rest."""
        return 0

    cdef bint leave_is_limited(self) noexcept:
        """Whether a task whose client has left gets ``--timeout-disconnect`` seconds to notice."""
        return True

    cdef int suspended(self) except -1:
        """The task waits for something."""
        return 0

    cdef bint answers(self) noexcept:
        """Whether its response has begun: its client has got something."""
        return False

    cdef int unfinished(self, bint raised) except -1:
        """The task has ended, by an exception or not, before it was complete, and its client is still there."""
        return 0

    cdef int cancel_timers(self) except -1:
        """The task has ended."""
        if self.leave_timer is not None:
            self.leave_timer.cancel()
            self.leave_timer = None
        return 0

    cdef int task_ended(self) except -1:
        """The task has ended and left the running tasks."""
        return 0

    # -- backpressure and fairness --------------------------------------------------------------------------------

    # A ``send()`` that is not its response's last first waits, then queues: who is cancelled while it waits has sent
    # nothing. It waits while more than ``HIGH_WATER`` is unsent, until the client has read, behind those who came before
    # it; and for one turn where the application has sent so much without suspending that the loop needs one.

    cdef void count_anew(self) noexcept:
        """The task has been suspended."""
        self._flushes = self.flush_count[0]
        self._unsuspended = 0
        self._unsuspended_bytes = 0

    cdef bint may_send(self, Py_ssize_t n) noexcept:
        """Whether ``n`` bytes can be queued at once, which then must be done."""
        if self.flush_count[0] != self._flushes:
            self.count_anew()
        if self._allowance < 0 or self._unsuspended >= YIELD_SENDS or self._unsuspended_bytes >= YIELD_BYTES:
            return False
        self._unsuspended += 1
        self._unsuspended_bytes += n
        self._allowance -= n + FRAMING
        return True

    cdef object send_later(self, object data, Py_ssize_t n):
        """The awaitable of a ``send()`` of ``n`` bytes for which ``may_send`` was false. ``data`` is for ``deliver``."""
        cdef Sending waiting
        cdef bint turn = self._unsuspended >= YIELD_SENDS or self._unsuspended_bytes >= YIELD_BYTES
        if not turn and self.senders is None:
            if self.unsent() > HIGH_WATER:
                self.flush()
                if self.disconnected:                # that found that the client has left
                    return self.into_void()
            if self.unsent() <= HIGH_WATER:
                self.sent_late(data, n)
                return DONE
        waiting = Sending.__new__(Sending)
        waiting.owner = self
        waiting._data = data
        waiting._size = n
        waiting._turn = turn
        return waiting

    cdef int sent_late(self, object data, Py_ssize_t n) except -1:
        """Queue what could not be queued by ``may_send``; nobody is before it."""
        if self.flush_count[0] != self._flushes:
            self.count_anew()
        self._unsuspended += 1
        self._unsuspended_bytes += n
        self._allowance = -1 if self.senders is not None else HIGH_WATER - self.unsent() - n - FRAMING
        self.deliver(data)
        if self._unsuspended_bytes >= YIELD_BYTES and not (self.disconnected or self.complete):
            self.flush()                             # the task may compute for long before it sends again
        return 0

    cdef bint turn_is_due(self) noexcept:
        """Count a call that is over at once and changes nothing. Whether the loop needs a turn first: a handler that goes
        on for nothing would freeze it."""
        if self.flush_count[0] != self._flushes:
            self.count_anew()
        self._unsuspended += 1
        if self._unsuspended <= YIELD_SENDS:
            return False
        self._unsuspended = 0
        return True

    cdef object nothing_sent(self):
        """The awaitable of a ``send()`` that does nothing."""
        return OneTurn.__new__(OneTurn) if self.turn_is_due() else DONE

    cdef object fail(self, object error):
        """Raise ``error`` out of a ``send()``, or return an awaitable that does."""
        if self.turn_is_due():
            return failing(error)
        raise error

    cdef object into_void(self):
        """The awaitable of a ``send()`` after the client has left: it raises, or before ASGI HTTP 2.4 does nothing."""
        return self.nothing_sent() if self.runtime.sends_into_void else self.fail(client_left())

    # -- the drain ------------------------------------------------------------------------------------------------

    cdef bint takes_place(self) noexcept:
        return True

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
        if lastcall_thread() != self.runtime.thread:
            try:
                self.runtime.loop.call_soon_threadsafe(self.disconnect_if_closing)
            except RuntimeError:           # the loop is closed: all is over
                pass
        elif self.policy == CLOSE:
            self.disconnect_response(CLOSED_BY_POLICY)

    @property
    def client_disconnected(self):
        """Whether the client has left, or was disconnected."""
        return self.disconnected

    @property
    def response_complete(self):
        """Whether the application has finished its response."""
        return self.complete and not self.incomplete

    def cancel(self):
        """Cancel the application's task, by the server's own order: no traceback will be logged for it.

        Once: a second CancelledError would hit the cleaning up that the first has begun.
        """
        if not self.cancelled:
            self.cancelled = True
            self.runtime.left_open = True
            if self.task is not None:
                self.task.cancel()

    cdef void response_begun(self) noexcept:
        """The response has begun, or the task has ended: nobody waits for its beginning any more."""
        if self._awaited:
            self._awaited = False
            self.runtime.tasks.awaited -= 1

    cdef int start_leave_timer(self) except -1:
        """The client is gone, or is treated so: the task has a while to notice. Frameworks need not look at
        ``receive()`` at all (Starlette does not, at spec_version 2.4 and above), and a quiet stream never sends."""
        cdef double seconds = self.runtime.timeout_disconnect
        if self.outcome is not None:
            seconds = self.runtime.drain.margin
        if self.leave_timer is not None:
            if self.outcome is None:       # its FIN came before, and the time runs
                if self.client_takes():
                    self.leave_at = self.runtime.loop.time() + seconds
                return 0
            self.leave_timer.cancel()
            self.leave_timer = None
        return self._leave_within(seconds, seconds)

    cdef int watch_half_closed(self) except -1:
        """The client has sent its FIN and the response has begun. It may be reading: the time begins anew with every
        byte that it takes."""
        cdef double seconds = self.runtime.timeout_disconnect
        if self.leave_timer is None:
            self.client_takes()
            self._leave_within(seconds, seconds / LOOKS)
        return 0

    cdef int _leave_within(self, double seconds, double look) except -1:
        if seconds < INFINITY:
            self.leave_at = self.runtime.loop.time() + seconds
            self.leave_timer = self.runtime.loop.call_later(look, self._outlives_its_client)
        return 0

    def _outlives_its_client(self):
        """The task has had its time without a client; or it is time to look whether a half-closed one still reads."""
        cdef double now = self.runtime.loop.time(), seconds = self.runtime.timeout_disconnect
        self.leave_timer = None
        if self.ended or self.complete or self.task is None:
            return
        if not self.disconnected and self.client_takes():
            self.leave_at = now + seconds
        if self.leave_at - now > CLOCK_GRAIN:
            self.leave_timer = self.runtime.loop.call_later(
                min(self.leave_at - now, seconds / LOOKS), self._outlives_its_client
            )
            return
        logger.debug("%s: still running without its client: cancelled", self.describe())
        self.cancel()
        if not self.disconnected:
            self.give_up()

    # -- what the application calls -------------------------------------------------------------------------------

    @cython.binding(True)
    def receive(self):
        """An awaitable of the next message; it does not suspend if that is known."""
        cdef Receive awaitable
        if <PyObject*>Py_TYPE(self) != <PyObject*>RECEIVER:
            check_receiver(self)
        awaitable = Receive.__new__(Receive)
        awaitable.owner = self
        return awaitable

    # -- the end --------------------------------------------------------------------------------------------------

    cdef int _ended(self, object exc) except -1:
        """The application returned (``exc`` None) or raised."""
        if self.runtime.forked:
            self.runtime.leave(exc)
        self.ended = True
        self.incomplete = not self.complete
        self._callbacks = None
        self.task = None
        self.cancel_timers()
        self.response_begun()
        self.scope = None
        try:
            if exc is not None:
                self._log_failure(exc)
            if not (self.disconnected or self.complete):
                if self.told and (exc is None or is_disconnect(exc)):
                    self.give_up()             # it was told that nobody waits, and heeds it
                else:
                    self.unfinished(exc is not None)
        finally:
            self.runtime.tasks.remove(self)
            self.task_ended()
        return 0

    cdef int _log_failure(self, object exc) except -1:
        if isinstance(exc, CancelledError) and self.cancelled:
            return 0                                  # our own order
        if is_disconnect(exc):
            return 0
        if self.cancelled and follows_a_cancel(exc):
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
cdef class AppCoroutine(Awaitable):
    """The coroutine of a request's task: the application's own, with the end of it handled here.

    It calls the application in the task's first step, passes every step on, and turns whatever comes out at the end
    into a response or a log line. SystemExit and KeyboardInterrupt stop here too: asyncio would let them out of the
    loop. A compiled object in place of an ``async def`` wrapper saves a frame per step.
    """

    def __init__(self):
        raise TypeError("a cycle makes these")

    cdef object step(self, object value):
        return self._step(value, None)

    cdef object thrown(self, object exc):
        return self._step(None, exc)

    cdef int closed(self) except -1:
        if self.inner is not None:
            self.inner.close()
        return 0

    cdef object _step(self, object value, object thrown):
        """Pass one step on; what the application's coroutine yields, or ENDED."""
        cdef PyObject* result = NULL
        cdef AppCycle cycle = <AppCycle>self.owner
        cdef object exc, coro
        cdef int outcome
        if cycle.runtime.forked:
            cycle.runtime.leave(None)
        if self.inner is None:
            if self.done:
                raise RuntimeError("cannot reuse an already awaited coroutine")
            exc = self._call(cycle, thrown)
            if exc is not None:
                self.done = True
                cycle._ended(exc)
                return ENDED
            value = None
        elif cycle.complete:
            cycle.ran_after_response = True
        cycle.stepping = True
        if thrown is not None:
            return self._throw(cycle, thrown)
        coro = self.inner
        outcome = PyIter_Send(<PyObject*>coro, <PyObject*>value, &result)
        cycle.stepping = False
        exc = None
        if outcome == PYGEN_ERROR:          # without a try statement, which would cost each step as much as this does
            exc = raised()
        else:
            value = <object>result          # yielded, or what the application returned: ASGI gives that no meaning
            Py_DECREF(result)
            if outcome == PYGEN_NEXT:
                return self._suspended(cycle, value)
        self.inner = None
        self.done = True
        cycle._ended(exc)
        return ENDED

    cdef object _call(self, AppCycle cycle, object thrown):
        """Call the application: the first step. Returns what that raised, or None."""
        cdef PyObject* arguments[4]
        cdef PyObject* made
        cdef dict scope = cycle.scope
        cdef object receive, send, coro
        cycle.scope = None
        if thrown is not None:
            return thrown                   # cancelled before it began
        if WANTED:
            PyContextVar_Set(CURRENT, notice_of(cycle))
        receive = PyMethod_New(RECEIVE, cycle)
        send = cycle.bound_send()
        arguments[0] = NULL
        arguments[1] = <PyObject*>scope
        arguments[2] = <PyObject*>receive
        arguments[3] = <PyObject*>send
        made = PyObject_Vectorcall(cycle.runtime.app, arguments + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        if made == NULL:
            return raised()
        coro = <object>made
        Py_DECREF(made)
        if not PyCoro_CheckExact(coro):
            try:
                coro = coro.__await__()
            except AttributeError:
                return TypeError(f"an ASGI application must return an awaitable, not {type(coro).__name__}")
            except BaseException as error:
                return error
        self.inner = coro
        return None

    cdef object _throw(self, AppCycle cycle, object thrown):
        """The same as ``_step`` where a step begins with an exception."""
        cdef object exc = None
        try:
            value = self.inner.throw(thrown)
            cycle.stepping = False
            return self._suspended(cycle, value)
        except StopIteration:
            pass
        except BaseException as error:
            exc = error
        cycle.stepping = False
        self.inner = None
        self.done = True
        cycle._ended(exc)
        return ENDED

    cdef object _suspended(self, AppCycle cycle, object value):
        if cycle.runtime.forked:            # in this step
            cycle.runtime.leave(None)
        cycle.runtime.tasks.steps_due += 1
        if not cycle._awaited and not cycle.answers():
            cycle._awaited = True
            cycle.runtime.tasks.awaited += 1
        cycle.suspended()
        return value

    # What debuggers, ``Task.get_stack()`` and ``repr(task)`` ask a coroutine for.

    @property
    def notice(self):
        """The request's DrainNotice: ``lastcall.drain_notice()`` looks here."""
        return notice_of(<AppCycle>self.owner)

    @property
    def __name__(self):
        """The application's own coroutine's name."""
        return getattr(self.inner, "__name__", APP)

    @property
    def __qualname__(self):
        """The application's own coroutine's qualified name."""
        return getattr(self.inner, "__qualname__", APP)

    @property
    def cr_frame(self):
        """The application's own coroutine's frame, or None."""
        return getattr(self.inner, "cr_frame", None)

    @property
    def cr_code(self):
        """The application's own coroutine's code, or None."""
        return getattr(self.inner, "cr_code", None)

    @property
    def cr_running(self):
        """Whether the application's own coroutine is being executed."""
        return getattr(self.inner, "cr_running", False)

    @property
    def cr_await(self):
        """What the application's own coroutine waits for, or None."""
        return getattr(self.inner, "cr_await", None)


@cython.final
cdef class Receive(Awaitable):
    """The awaitable of one ``receive()``: it takes a message in the step that returns it, and in no other."""

    def __init__(self):
        raise TypeError("receive() makes these")

    cdef object thrown(self, object exc):
        """A cancelled receive takes no message."""
        self.closed()
        if self.future is not None:
            self.future.cancel()
            self.future = None
        raise exc

    cdef int closed(self) except -1:
        self.done = True
        self.inner = None
        return 0

    cdef object step(self, object value):
        cdef AppCycle cycle = <AppCycle>self.owner
        cdef object message, future
        if self.done:
            raise RuntimeError("cannot reuse an already awaited receive()")
        if lastcall_thread() != cycle.runtime.thread:
            raise RuntimeError("receive() has to be awaited in the thread of the server's event loop")
        while True:
            if self.inner is not None:
                try:
                    return next(self.inner)
                except StopIteration:
                    self.inner = None
                    self.future = None
                except BaseException:
                    self.closed()
                    raise
            message = cycle.message()
            if message is None:
                cycle.wants_input()
                message = cycle.message()      # reading on may have found that the client has left
            if message is TURN:
                return None                    # a bare yield: it is asked for again in the next turn
            if message is not None:
                self.done = True
                self.result = message
                return ENDED
            future = cycle.runtime.loop.create_future()
            cycle.receive_waiter = add_waiter(cycle.receive_waiter, future)
            self.future = future
            self.inner = future.__await__()


@cython.final
cdef class Sending(Awaitable):
    """The awaitable of a ``send()`` that has to wait. It takes its place in the line of all who do in its first step, and
    sends in its last; one that is cancelled, or closed, in between has sent nothing."""

    def __init__(self):
        raise TypeError("send() makes these")

    cdef object thrown(self, object exc):
        if self.future is not None:
            self.future.cancel()
        self.closed()
        raise exc

    cdef int closed(self) except -1:
        self.done = True
        self.inner = None
        self.future = None
        self._data = None
        return self._leave()

    cdef int _leave(self) except -1:
        """Leave the line: the next one may have its turn."""
        cdef AppCycle cycle = <AppCycle>self.owner
        if self._queued:
            self._queued = False
            cycle.senders.remove(self)
            if not cycle.senders:
                cycle.senders = None
                cycle._allowance = -1                # asks
            elif cycle.unsent() <= HIGH_WATER:
                return cycle.wake_sender()
        return 0

    cdef object step(self, object value):
        cdef AppCycle cycle = <AppCycle>self.owner
        cdef object data
        if self.done:
            raise RuntimeError("cannot reuse an already awaited send()")
        if lastcall_thread() != cycle.runtime.thread:
            raise RuntimeError("send() has to be awaited in the thread of the server's event loop")
        while True:
            if self.inner is not None:
                try:
                    return next(self.inner)
                except StopIteration:
                    self.inner = None
                    self.future = None
                except BaseException:
                    self.closed()
                    raise
            if cycle.disconnected:
                self.closed()
                if cycle.runtime.sends_into_void:
                    return ENDED
                raise client_left()
            if cycle.complete:                       # ASGI: messages after the end of the response are ignored
                self.closed()
                return ENDED
            if not self._queued:
                self._queued = True
                cycle._allowance = -1                # whoever comes from now on is behind
                if cycle.senders is None:
                    cycle.senders = deque()
                cycle.senders.append(self)
            if self._turn:
                self._turn = False
                cycle.count_anew()
                return None                          # a bare yield: the task is called again in the next turn
            if cycle.senders[0] is self and cycle.unsent() <= HIGH_WATER:
                data = self._data
                self._queued = False
                cycle.senders.popleft()
                if not cycle.senders:
                    cycle.senders = None
                self.closed()
                cycle.sent_late(data, self._size)
                cycle.wake_sender()
                return ENDED
            self.future = cycle.runtime.loop.create_future()
            self.inner = self.future.__await__()


cdef object RECEIVE = marked(AppCycle.receive)

cimport cython

from lastcall.asgi.awaitables cimport Awaitable
from lastcall.asgi.runtime cimport AppRuntime
from lastcall.notice.running cimport RunningTask


cdef enum:
    HIGH_WATER = 65536      # bytes unsent: above it send() suspends, or reading is paused
    LOW_WATER = 16384       # bytes unsent: below it senders are woken


cdef class AppCycle(RunningTask):
    cdef AppRuntime runtime
    cdef object task
    cdef dict scope                     # only until the application is called: no reference cycle while it runs
    cdef bytes raw_path
    cdef bytes query_string
    cdef readonly bint disconnected     # the client has left, or is treated so
    cdef readonly bint complete         # the application has sent all that it can
    cdef readonly bint ended            # the task has ended
    cdef readonly bint ran_after_response   # for at least a step
    cdef bint cancelled                 # by our own order
    cdef bint incomplete                # the task ended before it was complete
    cdef bint stepping                  # the task's own coroutine runs (not a task that it has started)
    cdef object leave_timer             # runs out when the task goes on too long without its client
    cdef object receive_waiter          # future, list of futures, or None
    cdef object send_waiter
    cdef unsigned int _flushes          # of the stream, when its sends were last counted
    cdef int _unsuspended               # sends since then
    cdef Py_ssize_t _unsuspended_bytes

    # -- driven by the connection
    cdef int start(self) except -1
    cdef int disconnect(self) except -1
    cdef int wake_sender(self) except -1
    cdef int wake_receivers(self) except -1
    # -- what each protocol does its own way
    cdef object message(self)
    cdef int wants_input(self) except -1
    cdef Py_ssize_t unsent(self) noexcept
    cdef unsigned int flushes(self) noexcept
    cdef bint expects_end(self) noexcept
    cdef int suspended(self) except -1
    cdef int unfinished(self, bint raised) except -1
    cdef int cancel_timers(self) except -1
    cdef int task_ended(self) except -1
    # -- for its subclasses
    cdef object after_send(self, Py_ssize_t n)
    cdef int expect_end(self) except -1
    # -- private
    cdef int _ended(self, object exc) except -1
    cdef int _log_failure(self, object exc) except -1


@cython.final
cdef class AppCoroutine(Awaitable):
    cdef AppCycle _cycle
    cdef object _coro
    cdef object _step(self, object value, object thrown)


@cython.final
cdef class Receive(Awaitable):
    cdef AppCycle _cycle
    cdef object _future
    cdef object _iterator
    cdef bint _done


@cython.final
cdef class Writable(Awaitable):
    cdef AppCycle _cycle
    cdef object _future
    cdef object _iterator


cdef object item(object message, object key)

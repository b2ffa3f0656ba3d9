cimport cython

from lastcall.asgi.runtime cimport AppRuntime
from lastcall.notice.notice cimport DrainNotice
from lastcall.wire.response cimport ResponseHead


cdef class HTTPCycle(DrainNotice):
    cdef AppRuntime runtime
    cdef object task
    cdef dict scope                     # only until the application is called: no reference cycle while it runs
    # what the log and the report say of it
    cdef str method
    cdef bytes raw_path
    cdef bytes query_string
    # request body
    cdef object body                    # bytes, a list of bytes, or None
    cdef readonly Py_ssize_t buffered
    cdef readonly bint body_complete    # the whole body has been read from the peer
    cdef bint body_given                # and the application has been given its end
    cdef readonly bint disconnected
    cdef object receive_waiter          # future, list of futures, or None
    # response
    cdef ResponseHead head              # http.response.start came
    cdef readonly bint started          # its first byte is queued: no other answer is possible now
    cdef readonly bint complete
    cdef readonly bint ended            # the task has ended
    cdef bint cancelled                 # by our own order
    cdef readonly bint ran_after_response          # after its response, for at least a step
    cdef bint incomplete                   # the task ended before its response was complete
    cdef bint stepping                  # the task's own coroutine runs (not a task that it has started)
    cdef object head_timer              # runs out when the head has waited long enough for the body
    cdef object leave_timer             # runs out when the task goes on too long without its client
    cdef object send_waiter
    cdef readonly long long body_sent   # body bytes handed to the stream
    cdef int unsuspended                # sends since the stream was last flushed

    # -- driven by the connection
    cdef int feed(self, const char* data, Py_ssize_t n) except -1
    cdef int feed_end(self) except -1
    cdef int disconnect(self) except -1
    cdef int start(self) except -1
    cdef int wake_sender(self) except -1
    # -- what each HTTP version does its own way
    cdef int write_body(self, const char* data, Py_ssize_t n, bint more) except -1
    cdef int wants_body(self) except -1
    cdef int body_taken(self, Py_ssize_t n) except -1
    cdef bint congested(self) noexcept
    cdef bint must_yield(self) noexcept
    cdef int answer_error(self, int status) except -1
    cdef int abort(self) except -1
    cdef int task_ended(self) except -1
    # -- private
    cdef object _message(self)
    cdef int _wake_receivers(self) except -1
    cdef int _expect_end(self) except -1
    cdef int _hold_head(self) except -1
    cdef int _ended(self, object exc) except -1
    cdef int _log_failure(self, object exc) except -1


@cython.final
cdef class AppCoroutine:
    cdef HTTPCycle _cycle
    cdef object _coro
    cdef object _step(self, bint throwing, object a, object b, object c)


@cython.final
cdef class Receive:
    cdef HTTPCycle _cycle
    cdef object _future
    cdef object _iterator
    cdef bint _done
    cdef object _advance(self)


@cython.final
cdef class Writable:
    cdef HTTPCycle _cycle
    cdef object _future
    cdef object _iterator
    cdef object _advance(self)

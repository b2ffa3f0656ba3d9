from lastcall.asgi.cycle cimport AppCycle
from lastcall.wire.head cimport ResponseHead


cdef class HTTPCycle(AppCycle):
    cdef str method
    cdef bytes accept                   # see RequestParser.accept; the application may write into what it got
    # request body
    cdef object body                    # bytes, a bytearray of many pieces, or None
    cdef readonly Py_ssize_t buffered
    cdef readonly bint body_complete    # the whole body has been read from the peer
    cdef bint body_given                # and the application has been given its end
    # response
    cdef ResponseHead head              # http.response.start came
    cdef readonly bint started          # its first byte is queued: no other answer is possible now
    cdef double answered                # when that was, on the loop's clock; only where responses are counted
    cdef object head_timer              # runs out when the head has waited long enough for the body
    cdef readonly long long body_sent   # body bytes handed to the stream
    cdef readonly bint refused          # the server has answered with the status 200 all the same
    cdef bint probe                     # of --health-path
    cdef object _broken_off             # see RunningTask.broken_off

    # -- driven by the connection
    cdef int feed(self, const char* data, Py_ssize_t n) except -1
    cdef int feed_end(self) except -1
    # -- what each HTTP version does its own way
    cdef int write_body(self, const char* data, Py_ssize_t n, bint more) except -1
    cdef int body_taken(self, Py_ssize_t n) except -1
    cdef int answer_error(self, int status) except -1
    cdef int abort(self) except -1
    cdef bint end_whole(self) except -1
    cdef bint whole(self) noexcept
    # -- for its subclasses
    cdef int break_off(self) except -1
    cdef bint wants_events(self) except -1
    cdef bint is_event_stream(self) except -1
    # -- private
    cdef int _leave_whole(self) except -1
    cdef object _send_body(self, object data, bint more)
    cdef object _send_other(self, object kind, object message, object status, object headers)
    cdef object _send_unusual(self, object message)
    cdef int _hold_head(self) except -1

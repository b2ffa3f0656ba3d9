cimport cython

from lastcall.asgi.cycle cimport HTTPCycle
from lastcall.asgi.runtime cimport AppRuntime
from lastcall.connection.scheduler cimport Scheduler
from lastcall.connection.stream cimport Connection, Stream
from lastcall.wire.buffer cimport ByteBuffer
from lastcall.wire.http1 cimport RequestParser


cdef enum Framing:
    NO_BODY = 0       # HEAD, 204, 304
    LENGTH = 1        # Content-Length
    CHUNKED = 2
    UNTIL_CLOSE = 3   # HTTP/1.0 without a length


@cython.final
cdef class HTTPService(AppRuntime):
    cdef readonly Scheduler scheduler
    cdef object options                    # base.options.HTTPOptions
    cdef bint keep_alive
    cdef Py_ssize_t limit_concurrency      # 0: none
    cdef readonly long long requests       # complete heads so far
    cdef long long probes                  # and how many of them were for the health path
    cdef long long max_requests            # 0: none
    cdef object on_max_requests
    cdef public bint draining              # every answer closes its connection
    cdef readonly Py_ssize_t backlog_answered # connections that came in a drain and got an answer
    cdef public double drained_from        # loop time at which connections that come are late; infinity: none is
    cdef str ready_path                    # "" or None: no health path
    cdef str live_path
    cdef public bint listeners_closed           # in a stop: whoever is quiet now is closed
    cdef public bint refusing              # and that answer is a 503
    cdef bint warned_websocket


@cython.final
cdef class HTTP1Cycle(HTTPCycle):
    cdef HTTP1Connection connection
    cdef bint keep_alive
    cdef bint head_only                    # the request is a HEAD
    cdef int minor
    cdef Framing framing
    cdef long long remaining               # of a declared Content-Length
    cdef bint cut                          # it was longer than declared
    cdef unsigned int flushes
    cdef Py_ssize_t unsuspended_bytes
    cdef int write_head(self) except -1
    cdef int finished(self) except -1


@cython.final
cdef class HTTP1Connection(Connection):
    cdef readonly HTTPService service
    cdef RequestParser parser
    cdef ByteBuffer pending                # bytes that wait for the response before them, or for the rest of a line
    cdef HTTP1Cycle cycle                  # the exchange that owns the output
    cdef bint starting                     # its task is not started yet
    cdef bint request_read                 # its request is read to the end
    cdef bint advancing
    cdef bint discarding                   # an unread body after its answer
    cdef bint expect_pending               # the client waits for 100 Continue
    cdef bint paused
    cdef bint waiting                      # for its turn: a request is in ``pending``
    cdef bint held                         # until the client has read what it asked for before
    cdef bint nothing_read                       # no byte has ever come
    cdef bint late                         # accepted in a drain, and not answered yet
    cdef double head_at                    # when the first byte of the head that is being read came
    cdef Py_ssize_t owed                   # bytes of ``pending`` that were there when the last answers began
    cdef Py_ssize_t discarded
    cdef object client
    cdef object server
    cdef Py_ssize_t advance(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef bint clogged(self) except -1
    cdef bint ended(self) noexcept
    cdef bint is_last_answer(self) noexcept
    cdef int answer_health(self) except -1
    cdef bint outstayed(self) noexcept
    cdef int begin_request(self) except -1
    cdef int start_request(self) except -1
    cdef int after_input(self) except -1
    cdef int refuse(self, int status, str reason) except -1
    cdef int response_done(self, HTTP1Cycle cycle) except -1
    cdef int client_left(self) except -1
    cdef int cut_response(self, HTTP1Cycle cycle) except -1
    cdef int advance_pending(self) except -1
    cdef int half_closed(self) except -1
    cdef int log(self, HTTP1Cycle cycle) except -1
    cdef int set_body_deadline(self) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1

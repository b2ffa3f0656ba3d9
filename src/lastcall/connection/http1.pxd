cimport cython

from lastcall.asgi.cycle cimport AppCycle
from lastcall.asgi.http cimport HTTPCycle
from lastcall.asgi.scope cimport HTTPScopes
from lastcall.connection.deadlines cimport Node
from lastcall.connection.service cimport HTTPService
from lastcall.connection.stream cimport Connection, Stream
from lastcall.wire.buffer cimport ByteBuffer
from lastcall.wire.http1 cimport RequestParser


cdef enum State:
    # and FINISHING and CLOSED, as every connection; see TRANSITIONS
    AWAIT_HEAD = 0
    EXCHANGE = 1
    DISCARDING = 2


cdef enum Wait:
    # why a request that is in ``pending`` has not been started
    NO_WAIT = 0
    FOR_TURN = 1      # it is in the scheduler's list
    FOR_CLIENT = 2    # until the client has read what it asked for before


cdef enum Framing:
    NO_BODY = 0       # HEAD, 204, 205, 304
    LENGTH = 1        # Content-Length
    CHUNKED = 2
    UNTIL_CLOSE = 3   # HTTP/1.0 without a length


cdef struct Bounds:
    # What --limit-requests-per-connection, --max-connection-age and --timeout-request count.
    long long requests                     # so far
    long long most                         # the last answer comes with this one; 0: no limit
    double born                            # when it was accepted
    double ends_at                         # from then on the next answer is the last; infinity: never
    Node age                               # looks at ``ends_at`` now and then
    Node request                           # when the response must be complete


@cython.final
cdef class HTTP1Cycle(HTTPCycle):
    cdef HTTP1Connection connection
    cdef int minor
    cdef bint keep_alive
    cdef bint head_only                    # the request is a HEAD
    cdef bint request_read                 # to its end
    cdef bint called                       # the application was, or the server answered in its place
    cdef bint expects_continue             # the client waits for 100 Continue
    cdef Framing framing
    cdef long long remaining               # of a declared Content-Length
    cdef bint lost                         # the connection was closed before all of what was queued was sent
    cdef bint too_long                     # the body was longer than declared
    cdef AppCycle upgrade                  # the run of the application that has asked for another protocol, or None
    cdef int write_head(self) except -1
    cdef int finished(self) except -1
    cdef int limit_waiting(self) except -1


@cython.final
cdef class HTTP1Connection(Connection):
    cdef readonly HTTPService service
    cdef HTTPScopes scopes
    cdef RequestParser parser
    cdef ByteBuffer pending                # bytes that wait for the response before them, or for the rest of a line
    cdef HTTP1Cycle cycle                  # the exchange that owns the output, in EXCHANGE
    cdef Wait waiting
    cdef bint advancing                    # advance() is on the stack
    cdef bint accepted_in_drain            # and not answered yet
    cdef double head_at                    # when the first byte of the head that is being read came; < 0: none ever did
    cdef Py_ssize_t before_drain           # bytes of ``pending`` that were there when the drain began
    cdef long long discarded
    cdef bint refused                      # the last answer was to what cannot be read: where it ends is not known
    cdef bint uploading                    # FINISHING: what the last answer was about may still come
    cdef object client
    cdef object server
    cdef Connection successor              # of the protocol that was agreed on, until it has the socket
    cdef Bounds* bounds                    # NULL unless the service is ``bounded``
    # reading
    cdef Py_ssize_t advance(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int advance_pending(self) except -1
    cdef HTTP1Cycle new_exchange(self)
    cdef int let_go(self, HTTP1Cycle cycle) except -1
    cdef int begin_request(self) except -1
    cdef int start_request(self) except -1
    cdef int after_input(self) except -1
    cdef int discard(self, Py_ssize_t n) except -1
    cdef int set_body_deadline(self) except -1
    cdef int resume(self) except -1
    cdef bint nothing_pending(self) noexcept
    cdef bint client_must_read(self) except -1
    cdef bint idle_in_stop(self) noexcept
    cdef bint stays_open(self) noexcept
    cdef int offer(self) except -1
    cdef bint no_request_follows(self) noexcept
    cdef bint is_last_answer(self, HTTP1Cycle cycle) noexcept
    # bounds
    cdef int bound(self, double age, long long requests) except -1
    cdef int apply_bounds(self, HTTP1Cycle cycle) except -1
    cdef int grow_old(self) except -1
    cdef int take_too_long(self) except -1
    # ends
    cdef int half_closed(self) except -1
    cdef int refuse(self, int status, str reason) except -1
    cdef int response_done(self, HTTP1Cycle cycle) except -1
    cdef int client_left(self) except -1
    cdef int cut_response(self) except -1
    cdef int record(self, HTTP1Cycle cycle) except -1
    cdef int become_websocket(self, Connection successor) except -1

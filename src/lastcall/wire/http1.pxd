cimport cython


cpdef enum Event:
    NEED_DATA = 0   # the buffer holds no whole line or body byte more: read on
    HEAD = 1        # a request head is complete; its fields are on the parser
    DATA = 2        # body bytes at [data_at, data_at + data_len) of the buffer
    END = 3         # the message is complete
    FAILED = 4      # the peer broke the protocol: status and reason are set, the connection cannot go on


cdef enum State:
    START = 0
    FIELDS = 1
    LENGTH_BODY = 2
    CHUNK_SIZE = 3
    CHUNK_DATA = 4
    CHUNK_END = 5
    TRAILERS = 6
    BROKEN = 7


@cython.final
cdef class RequestParser:
    cdef readonly Py_ssize_t limit_request_line
    cdef readonly Py_ssize_t limit_headers
    cdef readonly Py_ssize_t limit_header_bytes
    cdef readonly long long limit_body          # -1: none
    # where the parser stands
    cdef State state
    cdef Py_ssize_t pos         # how much of the caller's buffer is consumed
    cdef Py_ssize_t scanned     # how much of the unfinished line has been looked at already
    cdef Py_ssize_t field_bytes
    cdef long long remaining    # of the body or of the chunk
    cdef long long received     # body bytes so far
    cdef short blank_lines
    cdef short hosts
    cdef short codings          # transfer-coding names seen
    cdef short chunked_at       # which of them was the first "chunked" (1-based), 0 for none
    cdef Py_ssize_t fields
    # the head
    cdef readonly str method
    cdef readonly str path
    cdef readonly bytes raw_path
    cdef readonly bytes query_string
    cdef readonly list headers
    cdef bytes accept           # what the Accept fields say that are long enough to name an event stream; None: nothing
    cdef readonly long long content_length      # -1: none declared
    cdef readonly int minor                     # HTTP/1.minor
    cdef readonly bint chunked
    cdef readonly bint keep_alive
    cdef readonly bint expect_continue
    cdef readonly bint upgrade_websocket
    cdef readonly bint has_body
    cdef readonly bint named                    # the request line of this head is parsed: method and target are its own
    cdef bint connection_close
    cdef bint connection_keep_alive
    cdef bint unknown_expectation
    cdef bint bad_coding
    cdef bytes authority        # of an absolute-form target
    # the last event
    cdef Py_ssize_t data_at
    cdef Py_ssize_t data_len
    cdef readonly int status
    cdef readonly str reason
    # the buffer of the Python methods only
    cdef bytearray _buffer

    cdef bint between_requests(self) noexcept
    cdef int next(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int _fail(self, int status, str reason) except -1
    cdef Py_ssize_t _line(self, const unsigned char* p, Py_ssize_t n, Py_ssize_t limit, int status) except -3
    cdef int _head(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int _request_line(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int _target(self, const unsigned char* p, Py_ssize_t n, bint options) except -1
    cdef int _split_target(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int _field(self, const unsigned char* p, Py_ssize_t n, bint trailer) except -1
    cdef int _special(self, int which, const unsigned char* p, Py_ssize_t n) except -1
    cdef int _accept(self, bytes value) except -1
    cdef int _transfer_encoding(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int _connection(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef void _upgrade(self, const unsigned char* p, Py_ssize_t n) noexcept
    cdef int _head_complete(self) except -1
    cdef int _chunk_size(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int _body(self, const unsigned char* p, Py_ssize_t n) except -1


cdef str HEAD_METHOD             # the object that ``RequestParser.method`` is for HEAD

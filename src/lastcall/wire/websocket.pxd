from libc.stdint cimport uint32_t, uint64_t

from lastcall.wire.buffer cimport ByteBuffer


cdef enum Opcode:
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA

cdef enum:
    FIN = 0x80
    RSV1 = 0x40                      # RFC 7692 7.2.1: the message is compressed
    FRAME_HEAD = 10                  # the longest head of a frame of ours, which is not masked

cdef enum FrameEvent:
    MORE = 0                         # all bytes are used up
    MESSAGE = 1                      # ``payload`` is a whole one: str or bytes
    GOT_PING = 2                     # ``payload`` is bytes
    GOT_PONG = 3
    GOT_CLOSE = 4                    # ``code`` and ``reason``
    FAILED = 5                       # ``code`` and ``reason`` are what the connection fails with


cdef class FrameParser:
    cdef Py_ssize_t pos              # how much of the last buffer is used
    cdef object payload
    cdef int code
    cdef str reason
    cdef readonly bint discarding    # data frames are checked, and dropped
    cdef long long _limit            # bytes of a message, inflated
    cdef object _inflater            # wire.deflate.Inflater, or None
    cdef ByteBuffer _pieces          # of a message that did not come at once; None: nothing has
    cdef unsigned char _head[14]
    cdef unsigned char _control[125]
    cdef int _have                   # bytes of the head
    cdef bint _in_payload
    cdef int _frame                  # its opcode
    cdef bint _fin
    cdef int _message                # the opcode of the message that is under way; 0: none
    cdef bint _compressed
    cdef uint64_t _left              # bytes of the frame
    cdef uint64_t _size              # bytes of the frame
    cdef uint32_t _mask              # as it lies in memory
    cdef int _phase                  # bytes of the frame so far, modulo 4
    cdef int _due                    # bytes of a character of UTF-8 that are still to come
    cdef unsigned char _low          # what the next of them is at least, and at most
    cdef unsigned char _high
    cdef bint _dead
    cdef int next(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int _begin(self) except -1
    cdef int _data(self, const unsigned char* p, Py_ssize_t n, bint ends) except -1
    cdef int _whole(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int _end_message(self) except -1
    cdef int _inflate(self, bytes piece) except -1
    cdef int _end_control(self) except -1
    cdef int _fail(self, int code, str reason) except -1
    cdef bint _continue_text(self, const unsigned char* p, Py_ssize_t n) noexcept


cdef char* put_head(char* at, int first, Py_ssize_t n) noexcept
cdef bytes close_payload(int code, str reason)
cdef bint may_close_with(long code) noexcept

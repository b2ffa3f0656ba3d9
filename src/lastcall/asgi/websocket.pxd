from lastcall.asgi.cycle cimport AppCycle


cdef class WebSocketCycle(AppCycle):
    cdef bint connect_given             # websocket.connect was taken
    cdef readonly bint accepted
    cdef readonly bint denied           # an answer of HTTP has begun in place of the handshake's, or is out
    cdef object denial                  # (status, headers) of websocket.http.response.start, until its first body
    cdef object first                   # the message that waits longest: str, bytes, or None
    cdef object more                    # deque of those behind it, or None
    cdef readonly Py_ssize_t waiting    # how many that are
    cdef readonly Py_ssize_t waiting_size   # bytes, or characters, of them
    cdef readonly int close_code        # what websocket.disconnect says
    cdef readonly str close_reason
    cdef readonly long long bytes_sent  # of messages
    cdef object handshake_timer

    # -- driven by the connection
    cdef int feed(self, object payload) except -1
    cdef int lost(self, int code, str reason) except -1
    # -- what each HTTP version does its own way
    cdef int accept_handshake(self, object subprotocol, object headers) except -1
    cdef int refuse_handshake(self, int status) except -1
    cdef int begin_denial(self, object status, object headers) except -1
    cdef int deny(self, bytes body, bint more) except -1
    cdef int write_message(self, object data) except -1
    cdef int close_socket(self, int code, str reason) except -1
    cdef int taken(self) except -1
    cdef object client_name(self)
    # -- private
    cdef int _tell(self) except -1
    cdef int _refuse(self, int status) except -1
    cdef object _take(self)
    cdef object _send_data(self, object message)
    cdef object _send_close(self, object message)
    cdef object _accept(self, object message)
    cdef object _send_denial(self, object kind, object message)

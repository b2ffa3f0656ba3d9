cimport cython


@cython.final
cdef class ResponseHead:
    cdef readonly int status
    cdef readonly bytes block               # the application's header lines, CRLF after each
    cdef readonly long long content_length  # -1: not declared
    cdef readonly bint close                # the application asked for "Connection: close"
    cdef readonly bint has_date
    cdef readonly bint has_server
    cdef readonly bint bodiless             # 204 and 304: no body, and no framing of one (RFC 9110 6.4.1)


cdef ResponseHead encode_response(object status, object headers, tuple defaults)
cdef bytes status_line(int status)

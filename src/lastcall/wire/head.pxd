cimport cython


@cython.final
cdef class ResponseHead:
    cdef readonly int status
    cdef list pairs                         # (name, value): tuples and bytes that nobody can change any more
    cdef Py_ssize_t size                    # of all names and values, in bytes
    cdef Py_ssize_t asked                   # of the pairs: those that are not defaults
    cdef tuple defaults
    cdef readonly long long content_length  # -1: not declared
    cdef readonly bint close                # the application asked for "Connection: close"
    cdef readonly bint has_date
    cdef readonly bint has_server
    cdef readonly bint bodiless             # 204 and 304: no body, and no framing of one (RFC 9110 6.4.1)


cdef ResponseHead check_head(object status, object headers, tuple defaults)

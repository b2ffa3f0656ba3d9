from lastcall.wire.head cimport ResponseHead


cdef bytes status_line(int status)
cdef Py_ssize_t fields_size(ResponseHead head) noexcept
cdef char* put_fields(char* at, ResponseHead head) noexcept

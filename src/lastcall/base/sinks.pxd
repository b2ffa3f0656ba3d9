cdef class AccessSink:
    cdef readonly bint enabled
    cdef void record(self, object client, object method, object target, object http_version, int status,
                     double duration, long long bytes_sent, str mark) noexcept
    cpdef void flush(self) noexcept

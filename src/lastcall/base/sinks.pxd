cdef class AccessSink:
    cdef readonly bint enabled      # whether it ever has a use for records
    cdef bint wants(self) noexcept
    cdef void record(self, object client, object method, object target, object http_version, int status,
                     double duration, long long bytes_sent, str mark) noexcept
    cpdef void flush(self) noexcept

from lastcall.base.sinks cimport AccessSink
from lastcall.observe.output cimport Output


cdef class AccessLog(AccessSink):
    cdef readonly long long dropped    # lines lost since the last one that said how many were
    cdef Output _output
    cdef bint _colors
    cdef bint _full                    # the buffer has reached LIMIT: lines are dropped until it was written out
    cdef char* _data                   # formatted lines: _data[_start:_end] is still to be written
    cdef Py_ssize_t _start
    cdef Py_ssize_t _end
    cdef Py_ssize_t _capacity
    cdef bytes _prefix                 # up to the client
    cdef bytes _quote                  # from the client to the method
    cdef list _endings                 # status -> bytes from the closing quote to the newline, made when first used
    cdef void record(self, object client, object method, object target, object http_version, int status,
                     double duration, long long bytes_sent, str mark) noexcept
    cpdef void flush(self) noexcept
    cdef int _append(self, object client, object method, object target, object http_version, int status,
                     bytes ending) except -1
    cdef bytes _ending(self, int status)
    cdef bytes _marked_ending(self, int status, str mark, long long bytes_sent)
    cdef char* _reserve(self, Py_ssize_t size) except NULL
    cdef bint _announce(self) noexcept
    cdef void _discard(self) noexcept
    cdef bint finish(self) noexcept
    cdef bint goes_where(self, AccessLog other) noexcept


cdef class ChosenAccess(AccessSink):
    cdef readonly AccessSink sink      # the one that fits at present
    cdef object _choose
    cdef object _find_watched
    cdef list _watched                 # of _Watched
    cdef bint _looked                  # since the last flush
    cdef list _left                    # AccessLogs that fitted before and have lines left; None: there are none
    cdef long long _lost               # lines that those could not write: the next AccessLog says so
    cdef bint wants(self) noexcept
    cdef void record(self, object client, object method, object target, object http_version, int status,
                     double duration, long long bytes_sent, str mark) noexcept
    cpdef void flush(self) noexcept
    cdef void _see(self) noexcept
    cdef bint _changed(self) except -1
    cdef int _look(self) except -1
    cdef int _finish_left(self) except -1


cdef class LoggerAccess(AccessSink):
    cdef object _logger
    cdef bint _complained
    cdef void record(self, object client, object method, object target, object http_version, int status,
                     double duration, long long bytes_sent, str mark) noexcept
    cdef void _complain(self) noexcept

cdef class Entry:
    cdef Entry _previous
    cdef Entry _next
    cdef Ledger _ledger          # None: not in one
    cdef readonly double since   # loop time at which the work began
    cdef public object outcome   # what the server did to it; None: nothing


cdef class Ledger:
    cdef Entry _first
    cdef readonly Py_ssize_t count
    cdef readonly unsigned long long total
    cdef public object on_leave
    cdef readonly Py_ssize_t others      # of ``count``: what is no request
    cdef int add(self, Entry entry, double now) except -1
    cdef int remove(self, Entry entry) except -1

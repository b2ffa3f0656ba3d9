cdef class RunningTask:
    cdef RunningTask _previous
    cdef RunningTask _next
    cdef RunningTasks _tasks          # None: not in one
    cdef readonly double since   # loop time at which the work began
    cdef public object outcome   # what the server did to it; None: nothing


cdef class RunningTasks:
    cdef RunningTask _first
    cdef readonly Py_ssize_t count
    cdef readonly unsigned long long total
    cdef public object on_leave
    cdef readonly Py_ssize_t others      # of ``count``: what is no request
    cdef int add(self, RunningTask entry, double now) except -1
    cdef int remove(self, RunningTask entry) except -1

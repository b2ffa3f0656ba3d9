cdef class RunningTask:
    cdef RunningTask _previous
    cdef RunningTask _next
    cdef RunningTasks _tasks         # None: not among any
    cdef readonly double since       # loop time at which the work began
    cdef public object outcome       # what the server did to it; None: nothing
    cdef int _chosen                 # drain.policy.Policy, by the application
    cdef list _callbacks             # of the notice, by the application
    cdef bint takes_place(self) noexcept
    cdef object signal(self)
    cdef int notified(self) except -1


cdef class RunningTasks:
    cdef RunningTask _first
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t places          # of ``count``: those that --limit-concurrency counts
    cdef readonly unsigned long long total
    cdef Py_ssize_t awaited                  # of ``count``: suspended, and no response has begun: somebody waits for them
    cdef unsigned int steps_due              # grows whenever the loop gets a step of one of them to run
    cdef public object on_end
    cdef int add(self, RunningTask task, double now) except -1
    cdef int remove(self, RunningTask task) except -1

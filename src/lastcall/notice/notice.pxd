from lastcall.notice.running cimport RunningTask


cdef class DrainNotice(RunningTask):
    cdef object _signal              # drain.signal.DrainSignal; None: the subclass knows a way
    cdef int _chosen                 # drain.policy.Policy, by the application
    cdef list _callbacks
    cdef object signal(self)
    cdef int notified(self) except -1


cdef bint WANTED                     # somebody in this process asks for the current request's notice
cdef object CURRENT                  # contextvars.ContextVar: the notice of the current request

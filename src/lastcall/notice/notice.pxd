cimport cython

from lastcall.notice.running cimport RunningTask


@cython.final
cdef class DrainNotice:
    cdef RunningTask _task           # None: the server's as a whole
    cdef object _signal              # notice.signal.DrainSignal


cdef DrainNotice notice_of(RunningTask task)

cdef bint WANTED                     # somebody in this process asks for the current request's notice
cdef object CURRENT                  # contextvars.ContextVar: the notice of the current request

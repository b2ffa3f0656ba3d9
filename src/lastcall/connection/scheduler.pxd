cimport cython

from lastcall.base.sinks cimport AccessSink
from lastcall.connection.deadlines cimport Deadlines, Timed
from lastcall.notice.running cimport RunningTasks


cdef class Runnable(Timed):
    cdef int run(self) except -1


cdef class Flushable:
    cdef bint dirty
    cdef int flush(self) except -1
    cdef int broken(self) except -1


@cython.final
cdef class Scheduler:
    cdef readonly object loop
    cdef readonly AccessSink access
    cdef readonly Deadlines deadlines
    cdef object _clock                 # None: the monotonic clock
    cdef object _time                  # None: the wall clock
    cdef double now
    cdef RunningTasks tasks            # of the service
    cdef unsigned int _steps_due       # of those, when the turn began
    cdef bint in_turn
    cdef double turn_ends
    cdef bint _scheduled
    cdef list _dirty
    cdef list _runnable
    cdef list _closed
    cdef int _answers                  # streams made dirty since the last flush
    cdef double _first_answer
    cdef double _mean_handler          # seconds that a handler runs in one step, a running mean
    cdef readonly unsigned int flushes
    cdef object _timer
    cdef double _timer_at
    # the lines that every response carries, rendered once a second
    cdef bytes _common
    cdef double _common_until
    cdef bint date_header
    cdef bint server_header
    cdef bytes date_line
    cdef bytes server_line

    cdef double tick(self) noexcept
    cdef double time(self) noexcept
    cdef void begin(self) noexcept
    cdef int end(self) except -1
    cdef int after_event(self, double started) except -1
    cdef int mark_dirty(self, Flushable stream) except -1
    cdef int mark_runnable(self, Runnable connection) except -1
    cdef int keep(self, Runnable connection) except -1
    cdef bint quiet(self) noexcept
    cdef bint spent(self) noexcept
    cdef int flush(self) except -1
    cdef int _schedule(self) except -1
    cdef int arm(self) except -1
    cdef int refresh_common(self) except -1
    cdef int report(self, str what) except -1

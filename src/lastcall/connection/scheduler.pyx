# cython: language_level=3
"""What the connections of one worker share: the clock, the timer, and the order of work inside one turn of the loop.

A *turn* is one callback of the event loop in which a driver serves any number of ready sockets. Answers are queued on
their streams and written near the end of it ("deferred flush": each write wakes the client's core), but never held
long: after ``FLUSH_ANSWERS`` answers, after ``FLUSH_SECONDS``, and before each next handler where handlers take long.
What an application sends outside a turn (from a task that the loop resumed) is flushed before the loop sleeps.

Requests are started from a turn only, never inside another request's ``send()``: a connection whose next request is
already in its buffer asks for it with ``mark_runnable``.
"""

cimport cython
from libc.math cimport INFINITY

import logging
from time import gmtime

from lastcall.base.sinks cimport AccessSink
from lastcall.connection.deadlines cimport Deadlines, Timed
from lastcall.notice.running cimport RunningTasks

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* now)
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME

cdef object logger = logging.getLogger("lastcall.error")

cdef tuple DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
cdef tuple MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

cdef enum:
    FLUSH_ANSWERS = 64

cdef double FLUSH_SECONDS = 2e-3     # a turn's length: each wake-up of a client's core costs as much as some answers
cdef double SLOW_HANDLER = 100e-6
cdef double TURN_SECONDS = 0.002     # then the loop's other work gets its turn
cdef double TIMER_GRAIN = 0.05       # no connection's timeout is more exact than this


cdef double _read(int clock) noexcept:
    cdef timespec at
    clock_gettime(clock, &at)
    return at.tv_sec + at.tv_nsec * 1e-9


cdef bytes http_date(double wall):
    """IMF-fixdate (RFC 9110 5.6.7), in English whatever the locale. ``email.utils`` would do, and is slow to import."""
    at = gmtime(wall)
    return (
        f"{DAYS[at.tm_wday]}, {at.tm_mday:02d} {MONTHS[at.tm_mon - 1]} {at.tm_year:04d} "
        f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT"
    ).encode("ascii")


cdef class Runnable(Timed):
    """A connection that may have a request to start."""

    cdef int run(self) except -1:
        return 0


cdef class Flushable:
    """A stream that may have bytes to write."""

    cdef int flush(self) except -1:
        return 0

    cdef int broken(self) except -1:
        """``flush`` raised: a bug of ours."""
        return 0


@cython.final
cdef class Scheduler:
    """See the module's docstring. ``clock`` and ``time`` (seconds) replace the real clocks in tests."""

    def __init__(self, loop, Deadlines deadlines not None, AccessSink access not None, *, bint date_header=True,
                 bint server_header=True, clock=None, time=None):
        self.loop = loop
        self.deadlines = deadlines
        self.access = access
        self.date_header = date_header
        self.server_header = server_header
        self._clock = clock
        self._time = time
        self._dirty = []
        self._runnable = []
        self._closed = []
        self._timer_at = INFINITY
        self.tick()

    cdef double tick(self) noexcept:
        """Read the clock. ``now`` is good for the rest of the step."""
        self.now = _read(CLOCK_MONOTONIC) if self._clock is None else <double>self._clock()
        return self.now

    cdef double time(self) noexcept:
        """The time of this step: inside a turn the clock was read a moment ago."""
        return self.now if self.in_turn else self.tick()

    cdef int refresh_common(self) except -1:
        """Render ``date`` and ``server`` anew if the second is over."""
        cdef double wall
        if self.time() >= self._common_until:
            wall = _read(CLOCK_REALTIME) if self._time is None else <double>self._time()
            self._common_until = self.now + 1.0 - (wall - <long long>wall)
            self.date_line = b"date: " + http_date(wall) + b"\r\n" if (
                self.date_header
            ) else b""
            self.server_line = b"server: lastcall\r\n" if self.server_header else b""
            self._common = self.date_line + self.server_line
        return 0

    # -- the order of a turn --------------------------------------------------------------------------------------

    cdef void begin(self) noexcept:
        """A turn begins: a driver calls this first."""
        self.in_turn = True
        self.turn_ends = self.tick() + TURN_SECONDS
        if self.tasks is not None:
            self._steps_due = self.tasks.steps_due

    cdef int after_event(self, double started) except -1:
        """One event of the turn, begun at ``started``, has been served: see whether answers must go out now."""
        cdef double spent = self.tick() - started
        self._mean_handler += (spent - self._mean_handler) * 0.0625
        if self._answers and (
            self._answers >= FLUSH_ANSWERS
            or self._mean_handler > SLOW_HANDLER
            or self.now - self._first_answer > FLUSH_SECONDS
        ):
            self.flush()
        return 0

    cdef int end(self) except -1:
        """The turn ends: start what waits in buffers, write what is queued, write the log, set the timer."""
        cdef list batch
        cdef Runnable one
        cdef double started
        while self._runnable and not self.spent():
            batch, self._runnable = self._runnable, []
            for one in batch:
                if self.spent():
                    self._runnable.append(one)
                    continue
                started = self.now
                try:
                    one.run()
                except Exception:
                    self.report("a connection")
                    one.broken()
                self.after_event(started)
        self.flush()
        self.in_turn = False
        if self._closed:
            self._closed.clear()
        if self._runnable or self._dirty:
            self._schedule()
        if self.access.enabled:
            self.access.flush()
        self.arm()
        return 0

    cdef bint spent(self) noexcept:
        """Whether the turn's time is over."""
        return self.tick() > self.turn_ends

    cdef bint quiet(self) noexcept:
        """Whether nothing waits for the loop: no request whose response has not begun, and no task that this turn has
        started or woken. A stream that waits since before the turn does not count: there may be one for hours."""
        return (
            self.tasks is not None and self.tasks.awaited == 0 and self.tasks.steps_due == self._steps_due
            and not self._runnable
        )

    @property
    def nothing_waits(self):
        """``quiet()``, for tests and tools."""
        return self.quiet()

    cdef int flush(self) except -1:
        """Write what every dirty stream has queued."""
        cdef list batch
        cdef Flushable stream
        self._answers = 0
        self.flushes += 1
        if self._dirty:
            batch, self._dirty = self._dirty, []
            for stream in batch:
                stream.dirty = False
                try:
                    stream.flush()
                except Exception:
                    self.report("a stream")
                    stream.broken()
        return 0

    cdef int mark_dirty(self, Flushable stream) except -1:
        """The stream has bytes to write, or a FIN."""
        if not stream.dirty:
            stream.dirty = True
            self._dirty.append(stream)
            if self._answers == 0:
                self._first_answer = self.now
            self._answers += 1
            if not self.in_turn:
                self._schedule()
        return 0

    cdef int mark_runnable(self, Runnable connection) except -1:
        """The connection has a request in its buffer that may start now."""
        self._runnable.append(connection)
        if not self.in_turn:
            self._schedule()
        return 0

    cdef int keep(self, Runnable connection) except -1:
        """Keep a closed connection, and its stream, alive to the end of the turn: methods of theirs, which hold no
        reference to what they belong to, may still be under way."""
        self._closed.append(connection)
        if not self.in_turn:
            self._schedule()
        return 0

    cdef int _schedule(self) except -1:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn)
        return 0

    def _turn(self):
        """A turn without ready sockets: for what applications did outside one."""
        self._scheduled = False
        self.begin()
        self.end()

    # -- the timer ------------------------------------------------------------------------------------------------

    cdef int arm(self) except -1:
        """One timer of the loop for the first deadline. It is moved only to be earlier, so a busy server, which sets
        and unsets deadlines all the time, hardly ever touches it."""
        cdef double first = self.deadlines.first()
        cdef double now
        if first + TIMER_GRAIN < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = first
            self._timer = self.loop.call_later(max(first - self.now, TIMER_GRAIN), self._timer_fired)
        return 0

    def _timer_fired(self):
        self._timer = None
        self._timer_at = INFINITY
        self.begin()
        while True:
            try:
                self.deadlines.expire(self.now)
                break
            except Exception:
                self.report("a timeout")
        self.end()

    def close(self):
        """Cancel the timer. No connection may be left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = INFINITY

    cdef int report(self, str what) except -1:
        """Called in an except clause: a bug of ours must not take the other connections with it."""
        logger.exception("lastcall: internal error while serving %s; please report this", what)
        return 0

# cython: language_level=3
"""The tasks of running work: one entry per running ASGI task, from the request's head to the task's end.

It sits in the hot path, so an entry is a base class of the cycle object itself: joining and leaving a doubly linked
list costs a few pointer writes and no allocation. Work after the response (background tasks) keeps its entry.
"""


cdef class RunningTask:
    """One piece of running work. Subclasses say how it is told to end, and described.

    ``outcome`` is what the server did to it, a word of ``drain.report.OUTCOMES``, or None.
    """

    @property
    def running(self):
        """True while the entry is among the running tasks."""
        return self._tasks is not None

    @property
    def kind(self):
        """What the report calls it: ``request``, ``stream``, ``websocket``, ``background`` or ``app task``."""
        return "request"

    @property
    def whole(self):
        """False for a response that the application has not finished: to end it now would cut it."""
        return True

    @property
    def gone(self):
        """Whether nobody is connected any more who could miss the end of the response."""
        return False

    @property
    def ran_after_response(self):
        """Whether a task went on after its response: work that nobody waits for but this tasks."""
        return False

    def cancel(self):
        """Cancel the work. It leaves the running tasks when it has really ended."""
        raise TypeError(f"{type(self).__name__} cannot be cancelled")

    def disconnect_response(self, str outcome):
        """Disconnect the response, if it has started and is not finished; ``outcome`` says by which rule. Returns
        whether it was."""
        return False

    def abandon(self):
        """The work is abandoned: whoever waits for it is told, if that is still possible."""

    def describe(self):
        """A short phrase that names the work in log lines, such as ``GET /events``."""
        return type(self).__name__

    def details(self):
        """What the report tells of a response that is cut: ``method``, ``path``, ``bytes_sent``, ``client``."""
        return {"method": "", "path": self.describe(), "bytes_sent": 0, "client": ""}


cdef class RunningTasks:
    """All running work of one worker. ``count`` is what runs now, ``total`` what ever ran."""

    # ``on_leave(entry)``, if set, is called each time an entry leaves. A server sets it only for its stop: until then
    # nobody asks.

    def __len__(self):
        return self.count

    def __iter__(self):
        return iter(self.entries())

    def entries(self):
        """A snapshot, newest first; entries may leave while a caller walks over it."""
        cdef list found = []
        cdef RunningTask entry = self._first
        while entry is not None:
            found.append(entry)
            entry = entry._next
        return found

    cdef int add(self, RunningTask entry, double now) except -1:
        entry._tasks = self
        entry.since = now
        entry._next = self._first
        if self._first is not None:
            self._first._previous = entry
        self._first = entry
        self.count += 1
        self.total += 1
        return 0

    cdef int remove(self, RunningTask entry) except -1:
        """Take an entry out; one that is in no tasks, or in another, stays as it is: each leaves exactly once."""
        if entry._tasks is not self:
            return 0
        if entry._previous is not None:
            entry._previous._next = entry._next
        else:
            self._first = entry._next
        if entry._next is not None:
            entry._next._previous = entry._previous
        entry._previous = entry._next = None
        entry._tasks = None
        self.count -= 1
        if self.on_leave is not None:
            self.on_leave(entry)
        return 0

    def join(self, RunningTask entry not None, double now):
        """``add`` for callers in plain Python: what joins so is no request, and does not count as one."""
        if entry._tasks is not None:
            raise ValueError("the entry is running already")
        self.others += 1
        self.add(entry, now)

    def leave(self, RunningTask entry not None):
        """``remove`` for what has joined."""
        if entry._tasks is self:
            self.others -= 1
            self.remove(entry)

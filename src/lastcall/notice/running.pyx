# cython: language_level=3
"""The running tasks of one worker: one per ASGI task, and those that applications have tracked.

They sit in the hot path, so a running task is a base class of the cycle object itself: joining and leaving a doubly
linked list costs a few pointer writes and no allocation. Work after the response (background tasks) stays in it.
"""

from lastcall.notice.signal import call


cdef class RunningTask:
    """One piece of running work. Subclasses say how it is told to end, and described.

    ``outcome`` is what the server did to it, a word of ``drain.report.OUTCOMES``, or None.
    """

    cdef bint takes_place(self) noexcept:
        """Whether ``--limit-concurrency`` counts it."""
        return False

    cdef object signal(self):
        """The DrainSignal of its server."""
        raise NotImplementedError

    cdef int notified(self) except -1:
        """The notice is set: call who asked for it."""
        cdef list callbacks = self._callbacks
        if callbacks is not None:
            self._callbacks = None
            for function in callbacks:
                call(function)
        return 0

    def notify(self):
        """``notified`` for callers in plain Python."""
        self.notified()

    @property
    def running(self):
        """True while it is among the running tasks."""
        return self._tasks is not None

    @property
    def kind(self):
        """What the report calls it: ``request``, ``stream``, ``websocket``, ``background`` or ``app task``."""
        return "request"

    @property
    def response_complete(self):
        """False for a response that the application has not finished: to end it now would cut it."""
        return True

    @property
    def disconnectable(self):
        """Whether a client would miss the end of a response that has started: what ``DISCONNECTING`` cuts."""
        return False

    @property
    def client_disconnected(self):
        """Whether nobody is connected any more who could miss the end of the response."""
        return False

    @property
    def ran_after_response(self):
        """Whether a task went on after its response: work that nobody waits for but this server."""
        return False

    @property
    def broken_off(self):
        """The ``details()`` of a response that its application has ended in the middle, during a stop; else None. Its
        ``outcome`` says so too."""
        return None

    @property
    def task(self):
        """The asyncio.Task, or whatever future it is; None once it has ended."""
        return None

    @property
    def policy(self):
        """The policy of its response: the application's word, else that of the options."""
        return self._chosen

    def cancel(self):
        """Cancel the work. It leaves the running tasks when it has really ended."""
        raise TypeError(f"{type(self).__name__} cannot be cancelled")

    def disconnect_response(self, str outcome):
        """Disconnect the response, if it has started and is not finished; ``outcome`` says by which rule. Returns
        whether it was."""
        return False

    def disconnect_if_closing(self):
        """The time for farewells is over: disconnect the response if its policy is *close*. From any thread."""

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

    # ``on_end(task)``, if set, is called each time one ends. A server sets it only for its stop: until then nobody asks.

    def __len__(self):
        return self.count

    def __iter__(self):
        return iter(self.snapshot())

    def snapshot(self):
        """All of them, newest first; they may end while a caller walks over it."""
        cdef list found = []
        cdef RunningTask task = self._first
        while task is not None:
            found.append(task)
            task = task._next
        return found

    cdef int add(self, RunningTask task, double now) except -1:
        task._tasks = self
        task.since = now
        task._next = self._first
        if self._first is not None:
            self._first._previous = task
        self._first = task
        self.count += 1
        self.total += 1
        self.places += task.takes_place()
        return 0

    cdef int remove(self, RunningTask task) except -1:
        """Take one out; one that is not in here stays as it is: each leaves exactly once."""
        if task._tasks is not self:
            return 0
        if task._previous is not None:
            task._previous._next = task._next
        else:
            self._first = task._next
        if task._next is not None:
            task._next._previous = task._previous
        task._previous = task._next = None
        task._tasks = None
        self.count -= 1
        self.places -= task.takes_place()
        if self.on_end is not None:
            self.on_end(task)
        return 0

    def end_turn(self):
        """The loop has something to do that must not wait until a driver's turn is over: a stop order. In any thread."""
        self.steps_due += 1

    def join(self, RunningTask task not None, double now):
        """``add`` for callers in plain Python."""
        if task._tasks is not None:
            raise ValueError("the task is running already")
        self.add(task, now)

    def leave(self, RunningTask task not None):
        """``remove`` for what has joined."""
        self.remove(task)

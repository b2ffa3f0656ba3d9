# cython: language_level=3
"""What the application's tasks of one worker have in common, whatever protocol they speak."""

import contextvars
import sys

from lastcall.notice.running cimport RunningTasks
from lastcall.notice.signal import DrainSignal

cdef bint EAGER = sys.version_info >= (3, 12)


cdef class AppRuntime:
    """The application, its loop, its state, its running tasks, and what it is told of a stop."""

    def __init__(self, app, loop, RunningTasks tasks not None, *, state=None, default_headers=(), context=None,
                 signal=None, policies=None, double timeout_disconnect=3.0, str asgi_spec="2.5"):
        """``state`` is the lifespan's namespace (copied per request) or None; ``context`` a contextvars.Context.

        ``left_open`` is true once a task has had its response disconnected, by whomever, or was cancelled: frameworks
        leave a generator to the collector then. ``signal`` is the server's DrainSignal, ``policies`` its PolicyTable or None. ``timeout_disconnect``: seconds
        that the task of a response may go on when its client has left. ``asgi_spec`` is "2.3" or "2.5".
        """
        self.signal = DrainSignal() if signal is None else signal
        self.drain = self.signal.state
        self.policies = policies
        self.timeout_disconnect = timeout_disconnect
        self.asgi_spec = asgi_spec
        self.sends_into_void = asgi_spec == "2.3"
        self.app = app
        self.loop = loop
        self.tasks = tasks
        self.state = state
        self.default_headers = tuple(default_headers)
        self.context = contextvars.copy_context() if context is None else context
        self.task_arguments = {"loop": loop, "context": None}
        if EAGER:
            self.task_arguments["eager_start"] = True

    def let_go(self, leave):
        """In a forked child: no task of the parent's makes a step here. ``leave(exception)`` is called, and does not
        return, when one is about to, and when the one that has forked is at the end of its own."""
        self.forked = True
        self.leave = leave

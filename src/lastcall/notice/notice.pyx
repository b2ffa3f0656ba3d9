# cython: language_level=3
"""``DrainNotice``: what an application is told of the stop of its server, and what it can say about its response.

The cycle of each request is its notice, so that it costs nothing until it is used. Everything here may be called from
any thread.
"""

import asyncio
import contextvars
import logging
import threading

from lastcall.drain.policy import Policy
from lastcall.notice.signal import DrainSignal, call

cdef object logger = logging.getLogger("lastcall.error")
cdef object CURRENT = contextvars.ContextVar("lastcall.drain_notice")
cdef int CLOSE = Policy.CLOSE

# Setting a context variable is a twentieth of what a plain request costs. So requests set theirs only in a process that
# has asked for ``drain_notice``, which importing it from ``lastcall`` does, or whose application imports ``lastcall``.
cdef bint WANTED = False


cdef class DrainNotice(RunningTask):
    """The notice of one request, of an application's own task, or of a server as a whole."""

    def __init__(self, signal=None):
        self._signal = DrainSignal() if signal is None else signal

    def __copy__(self):
        return self                        # scopes are copied, the request is one

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError("a DrainNotice belongs to its process")

    cdef object signal(self):
        return self._signal

    @property
    def stopping(self):
        """True from the stop order on, also while the server still accepts (``--drain-delay``)."""
        return self.signal().stopping

    def is_set(self):
        """True from the moment on when the server has begun to drain."""
        return self.signal().is_set

    def wait(self):
        """An awaitable that is done when the notice is set."""
        return self.signal().wait()

    def remaining(self):
        """Seconds until this response is disconnected (``math.inf``: never); None before the notice is set."""
        return self.signal().remaining(closing=self.policy == CLOSE)

    def add_callback(self, function):
        """Call ``function()`` in the thread of the server's loop when the notice is set; now, if it is set already.

        It is forgotten when the request ends.
        """
        if not callable(function):
            raise TypeError(f"add_callback() takes a callable, not {function!r}")
        signal = self.signal()
        if signal.is_set:
            call(function)
        elif self._tasks is None:
            signal.add_callback(function)
        else:
            if self._callbacks is None:
                self._callbacks = []
            self._callbacks.append(function)
            if signal.is_set:              # meanwhile, where this is another thread
                self.notified()

    def finish(self):
        """Let this response finish, as long as the server's budget allows. After a disconnect it does nothing."""
        self._chosen = Policy.FINISH

    def close(self):
        """Have this response disconnected ``--drain-farewell`` seconds after the notice; at once, if that is over."""
        self._chosen = Policy.CLOSE
        if self.signal().farewell_over:
            self.disconnect_if_closing()

    def disconnect_if_closing(self):
        """The time for farewells is over: disconnect the response if its policy is *close*."""

    @property
    def policy(self):
        """The policy of this response: the application's word, else that of the options."""
        return self._chosen

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


def signal_of(DrainNotice notice not None):
    """The DrainSignal that ``notice`` is a view of."""
    return notice.signal()


cdef list SERVERS = []               # the signals of the servers that this process runs now
cdef list LAST = []                  # the one that ended last: threads may still ask whether they should end
cdef object SERVERS_LOCK = threading.Lock()
cdef object NEVER = DrainNotice(DrainSignal())


def register(signal):
    """A server of this process begins: ``signal`` is its DrainSignal."""
    with SERVERS_LOCK:
        SERVERS.append(signal)


def unregister(signal, *, last=False):
    """That server has ended. ``last``: so does the process, whose threads may go on asking whether they should too."""
    with SERVERS_LOCK:
        if signal in SERVERS:
            SERVERS.remove(signal)
            if last:
                LAST[:] = [signal]


def the_only_server():
    """The signal of this process's server, also when that has ended; None where there was none, or there are several."""
    with SERVERS_LOCK:
        found = SERVERS if SERVERS else LAST
        return found[0] if len(found) == 1 else None


def want():
    """From now on every request makes its notice known to the code that it runs, tasks and threads included."""
    global WANTED
    WANTED = True


cdef object _of_this_task():
    try:
        task = asyncio.current_task()
    except RuntimeError:                   # no loop in this thread
        return None
    found = None if task is None else getattr(task.get_coro(), "notice", None)
    return found if isinstance(found, DrainNotice) else None


def drain_notice():
    """The notice of the current request, else of this process's only server, else one that is never set.

    The last makes the same code run under any server.
    """
    want()
    found = CURRENT.get(None)
    if found is None:
        found = _of_this_task()            # a request that began before anybody asked
    if found is not None:
        return found
    signal = the_only_server()
    return NEVER if signal is None else DrainNotice(signal)

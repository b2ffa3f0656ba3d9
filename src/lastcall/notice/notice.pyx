# cython: language_level=3
"""``DrainNotice``: what an application is told of the stop of its server, and what it can say about its response.

It is a view: the state is in the running task that it belongs to, and in the server's DrainSignal, and neither can be
reached through it. Everything here may be called from any thread.
"""

cimport cython

import asyncio
import contextvars
import threading

from lastcall.drain.policy import Policy
from lastcall.notice.signal import DrainSignal, call

cdef object CURRENT = contextvars.ContextVar("lastcall.drain_notice")
cdef int FINISH = Policy.FINISH
cdef int CLOSE = Policy.CLOSE

# Setting a context variable is a twentieth of what a plain request costs. So requests set theirs only in a process that
# has asked for it, by taking ``drain_notice`` or ``track`` out of the package ``lastcall``.
cdef bint WANTED = False


@cython.final
@cython.freelist(64)
cdef class DrainNotice:
    """The notice of one request, of an application's own task, or of a server as a whole."""

    def __init__(self, signal=None):
        self._signal = DrainSignal() if signal is None else signal

    def __copy__(self):
        return self                        # scopes are copied, the request is one

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError("a DrainNotice belongs to its process")

    def __eq__(self, other):
        if not isinstance(other, DrainNotice):
            return NotImplemented
        if self._task is None:
            return (<DrainNotice>other)._task is None and (<DrainNotice>other)._signal is self._signal
        return (<DrainNotice>other)._task is self._task

    def __hash__(self):
        return hash(id(self._signal) if self._task is None else id(self._task))

    @property
    def stopping(self):
        """True from the stop order on, also while the server still accepts (``--drain-delay``)."""
        return self._signal.stopping

    def is_set(self):
        """True from the moment on when the server has begun to drain."""
        return self._signal.is_set

    def wait(self):
        """An awaitable that is done when the notice is set."""
        return self._signal.wait()

    def remaining(self):
        """Seconds until this response is disconnected (``math.inf``: never); None before the notice is set."""
        return self._signal.remaining(closing=self._task is not None and self._task.policy == CLOSE)

    def add_callback(self, function):
        """Call ``function()`` in the thread of the server's loop when the notice is set; now, if it is set already.

        It is forgotten when the request ends. One that is added after that is the server's.
        """
        cdef RunningTask task = self._task
        if not callable(function):
            raise TypeError(f"add_callback() takes a callable, not {function!r}")
        if self._signal.is_set:
            call(function)
        elif self is NEVER:
            pass                           # nobody will ever call it: keeping it would only cost memory
        elif task is None or task._tasks is None:
            self._signal.add_callback(function)
        else:
            if task._callbacks is None:
                task._callbacks = []
            waiting = task._callbacks
            waiting.append(function)
            if self._signal.is_set and function in waiting and task._callbacks is waiting:
                waiting.remove(function)   # it was set meanwhile, where this is another thread; the others are the loop's
                call(function)

    def track(self, task):
        """Have ``task`` drained like a request, by the server of this notice: :func:`lastcall.track` says how."""
        from lastcall.notice.tracking import track   # which needs this module
        before = CURRENT.set(self)
        try:
            return track(task)
        finally:
            CURRENT.reset(before)

    def finish(self):
        """Let this response finish, as long as the server's budget allows. After a disconnect it does nothing."""
        if self._task is not None:
            self._task._chosen = FINISH

    def close(self):
        """Have this response disconnected ``--drain-farewell`` seconds after the notice; at once, if that is over.

        A GET or HEAD that has not begun its response by then is answered 503.
        """
        if self._task is not None:
            self._task._chosen = CLOSE
            if self._signal.state.farewell_over:
                self._task.disconnect_if_closing()


cdef DrainNotice notice_of(RunningTask task):
    """The notice of a running task: a new view of it."""
    cdef DrainNotice notice = DrainNotice.__new__(DrainNotice)
    notice._task = task
    notice._signal = task.signal()
    return notice


def view(RunningTask task not None):
    """``notice_of`` for callers in plain Python."""
    return notice_of(task)


def signal_of(DrainNotice notice not None):
    """The DrainSignal that ``notice`` is a view of."""
    return notice._signal


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

    The last makes the same code run under any server. Child tasks and threads of a request find it by a context
    variable, which requests set once the process has asked: take this function out of ``lastcall`` when a module is
    imported (``from lastcall import drain_notice``), not in the middle of a request.
    """
    found = CURRENT.get(None)
    if found is not None:
        return found
    want()
    found = _of_this_task()                # a request that began before anybody asked
    if found is not None:
        return found
    signal = the_only_server()
    return NEVER if signal is None else DrainNotice(signal)

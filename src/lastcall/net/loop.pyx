# cython: language_level=3
"""asyncio's own selector loop, with its most frequent call compiled.

Every step of a task that has been suspended is one ``call_soon`` and one handle that is run. In plain Python these two
cost more than reading and answering the request. In all else the loop is asyncio's: what waits, times out, and decides
the order is inherited. In debug mode asyncio's own ``call_soon`` is used, for its checks.
"""

cimport cython

import asyncio
import contextvars
from asyncio import format_helpers

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef object copy_context = contextvars.copy_context


@cython.final
@cython.freelist(256)
cdef class Callback:
    """What ``call_soon`` returns: it has the methods of ``asyncio.Handle``."""

    cdef readonly bint _cancelled        # the loop looks before it runs a handle
    cdef readonly object _callback       # asyncio names it when it was slow, in debug mode
    cdef object _loop, _arguments, _context
    cdef object __weakref__

    def cancel(self):
        """Let the callback not be called. Has no effect once it was."""
        self._cancelled = True
        self._callback = self._arguments = None

    def cancelled(self):
        """Whether ``cancel()`` was called."""
        return self._cancelled

    @property
    def _source_traceback(self):
        # asyncio asks for it in debug mode, which may have begun since this was made.
        return None

    def get_context(self):
        """The context that the callback runs in."""
        return self._context

    def _run(self):
        cdef object callback = self._callback, arguments = self._arguments
        try:
            PyContext_Enter(self._context)
            try:
                callback(*arguments)
            finally:
                PyContext_Exit(self._context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            source = format_helpers._format_callback_source(callback, arguments)
            self._loop.call_exception_handler(
                {"message": f"Exception in callback {source}", "exception": exc, "handle": self}
            )

    def __repr__(self):
        if self._callback is None:
            return "<Callback cancelled>"
        return f"<Callback {format_helpers._format_callback_source(self._callback, self._arguments)}>"


cdef class CompiledCalls:
    """The methods of a loop that are called most: by each task that is made, and by each step of one."""

    cdef object _ready_handles       # the loop's own deque
    cdef bint _plain                 # neither in debug mode nor closed

    def is_running(self):
        """Whether the loop is running."""
        return self._thread_id is not None

    def get_debug(self):
        """Whether the loop is in debug mode."""
        return not self._plain and self._debug

    def call_soon(self, callback, *args, context=None):
        """Arrange for ``callback(*args)`` to be called in the next turn of the loop, in ``context``."""
        cdef Callback handle
        if not self._plain:
            return asyncio.SelectorEventLoop.call_soon(self, callback, *args, context=context)
        handle = Callback.__new__(Callback)
        handle._loop = self
        handle._callback = callback
        handle._arguments = args
        handle._context = copy_context() if context is None else context
        self._ready_handles.append(handle)
        return handle

    def _look(self):
        """Read again what the two methods go by."""
        self._ready_handles = self._ready
        self._plain = not self._debug and not self._closed


class SelectorLoop(CompiledCalls, asyncio.SelectorEventLoop):
    """See the module's docstring. It reads four private attributes of asyncio's loop; ``suits()`` says if they exist."""

    def suits(self):
        """Whether this version of asyncio is built as this class expects."""
        return {"_debug", "_closed", "_ready", "_thread_id"} <= vars(self).keys()

    def set_debug(self, enabled):
        """Enter or leave debug mode. asyncio's own constructor calls this too."""
        super().set_debug(enabled)
        if self.suits():
            self._look()

    def close(self):
        """Close the loop."""
        super().close()
        if self.suits():
            self._look()

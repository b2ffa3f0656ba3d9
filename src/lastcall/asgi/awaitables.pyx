# cython: language_level=3
"""Awaitables for ``send()``: one that is already done, one that gives the loop one turn, one for other threads.

A coroutine object per ``send()`` would cost more than the send. These implement the whole coroutine protocol
(``__await__``, ``send``, ``throw``, ``close``), so that ``asyncio.create_task(send(...))``, ``gather`` and anyio's
``start_soon`` take them as they take coroutines.
"""

cimport cython


cdef object raise_thrown(object kind, object value, object traceback):
    """Raise what ``throw()`` was given, in either of its two forms (an exception, or type, value and traceback)."""
    if isinstance(kind, BaseException):
        exc = kind
    elif isinstance(value, BaseException):
        exc = value
    else:
        exc = kind() if value is None else kind(value)
    if traceback is not None:
        exc = exc.with_traceback(traceback)
    raise exc


@cython.final
cdef class Done:
    """An awaitable without a value that is complete. It has no state, so one object serves everybody."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        """Coroutine protocol: complete at once."""
        raise StopIteration

    def throw(self, kind, value=None, traceback=None):
        """Coroutine protocol: raise what is thrown in."""
        raise_thrown(kind, value, traceback)

    def close(self):
        """Coroutine protocol: nothing to close."""


@cython.final
cdef class OneTurn:
    """Suspends its task for one turn of the loop: a task that only ever sends must not own the loop."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self._yielded:
            raise StopIteration
        self._yielded = True
        return None           # a bare yield: the task is called again in the next turn

    def send(self, value):
        """Coroutine protocol: the same as ``next``."""
        if self._yielded:
            raise StopIteration
        self._yielded = True
        return None

    def throw(self, kind, value=None, traceback=None):
        """Coroutine protocol: raise what is thrown in."""
        self._yielded = True
        raise_thrown(kind, value, traceback)

    def close(self):
        """Coroutine protocol: complete without another turn."""
        self._yielded = True


@cython.final
cdef class Later:
    """A ``send()`` called in another thread, as ``run_coroutine_threadsafe(send(message), loop)`` does: it acts when
    the loop's thread steps it."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self._advance()

    def send(self, value):
        """Coroutine protocol."""
        return self._advance()

    def throw(self, kind, value=None, traceback=None):
        """Coroutine protocol."""
        if self._awaitable is not None:
            return self._awaitable.throw(kind, value, traceback)
        raise_thrown(kind, value, traceback)

    def close(self):
        """Coroutine protocol."""
        if self._awaitable is not None:
            self._awaitable.close()

    cdef object _advance(self):
        if self._awaitable is None:
            self._awaitable = self._function(self._argument)
        return self._awaitable.send(None)


cdef Later later(object function, object argument):
    """``function(argument)``, called where the awaitable is first stepped."""
    cdef Later awaitable = Later.__new__(Later)
    awaitable._function = function
    awaitable._argument = argument
    return awaitable


DONE = Done()

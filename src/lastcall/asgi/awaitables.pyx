# cython: language_level=3
"""Awaitables in place of coroutine objects: the coroutine protocol once, the awaitables of ``send()``, and the futures
that tasks wait for.

A coroutine object per ``send()`` would cost more than the send. These implement the whole coroutine protocol
(``__await__``, ``send``, ``throw``, ``close``), so that ``asyncio.create_task(send(...))``, ``gather`` and anyio's
``start_soon`` take them as they take coroutines.
"""

cimport cython

cdef extern from "Python.h":
    void PyErr_SetObject(object kind, object value) noexcept

cdef object ENDED = object()


cdef object as_exception(object kind, object value, object traceback):
    """What ``throw()`` was given, in either of its two forms (an exception, or type, value and traceback)."""
    if isinstance(kind, BaseException):
        exc = kind
    elif isinstance(value, BaseException):
        exc = value
    else:
        exc = kind() if value is None else kind(value)
    return exc if traceback is None else exc.with_traceback(traceback)


@cython.freelist(128)
cdef class Awaitable:
    """The coroutine protocol. A subclass says what a step does: what it returns is what the task yields to its loop;
    ``ENDED`` is the end, and ``result`` what the await expression comes to."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef object yielded = self.step(None)
        if yielded is ENDED:
            if self.result is not None:
                PyErr_SetObject(StopIteration, self.result)
            # In a __next__ this statement only returns NULL, with the exception that is set now, or without any. What
            # it saves is a frame for a traceback that nobody sees.
            raise StopIteration
        return yielded

    def send(self, value):
        """Coroutine protocol: one step."""
        cdef object yielded = self.step(value)
        if yielded is ENDED:
            raise StopIteration(self.result)
        return yielded

    def throw(self, kind, value=None, traceback=None):
        """Coroutine protocol: one step that begins with an exception."""
        cdef object yielded = self.thrown(as_exception(kind, value, traceback))
        if yielded is ENDED:
            raise StopIteration(self.result)
        return yielded

    def close(self):
        """Coroutine protocol: there will be no step any more."""
        self.closed()

    cdef object step(self, object value):
        return ENDED

    cdef object thrown(self, object exc):
        raise exc

    cdef int closed(self) except -1:
        return 0


@cython.final
cdef class Done(Awaitable):
    """An awaitable without a value that is complete. It has no state, so one object serves everybody."""

    def __next__(self):
        raise StopIteration               # the most frequent of all: not even a call more


@cython.final
cdef class OneTurn(Awaitable):
    """Suspends its task for one turn of the loop: a task that only ever sends must not own the loop."""

    cdef object step(self, object value):
        if self.done:
            return ENDED
        self.done = True
        return None           # a bare yield: the task is called again in the next turn

    cdef object thrown(self, object exc):
        self.done = True
        raise exc

    cdef int closed(self) except -1:
        self.done = True
        return 0


@cython.final
cdef class Failing(Awaitable):
    """Suspends its task for one turn of the loop, and then raises ``result``: who tries again and again, whatever comes of
    it, must not own the loop either."""

    cdef object step(self, object value):
        cdef object error = self.result
        if not self.done:
            self.done = True
            return None
        self.result = None
        if error is None:
            raise RuntimeError("cannot reuse an already awaited send()")
        raise error

    cdef object thrown(self, object exc):
        self.closed()
        raise exc

    cdef int closed(self) except -1:
        self.done = True
        self.result = None
        return 0


@cython.final
cdef class Later(Awaitable):
    """A ``send()`` called in another thread, as ``run_coroutine_threadsafe(send(message), loop)`` does: it acts when
    the loop's thread steps it."""

    cdef object step(self, object value):
        if self._awaitable is None:
            awaitable = self._function(self._argument)
            if type(awaitable) is Later:
                raise RuntimeError("send() has to be awaited in the thread of the server's event loop")
            self._awaitable = awaitable
        yielded = self._awaitable.step(value)
        self.result = self._awaitable.result
        return yielded

    cdef object thrown(self, object exc):
        if self._awaitable is None:
            raise exc
        return self._awaitable.thrown(exc)

    cdef int closed(self) except -1:
        return 0 if self._awaitable is None else self._awaitable.closed()


cdef Failing failing(object error):
    """``error``, a turn of the loop later."""
    cdef Failing awaitable = Failing.__new__(Failing)
    awaitable.result = error
    return awaitable


cdef Later later(object function, object argument):
    """``function(argument)``, which returns an Awaitable, called where this is first stepped."""
    cdef Later awaitable = Later.__new__(Later)
    awaitable._function = function
    awaitable._argument = argument
    return awaitable


cdef object add_waiter(object waiting, object future):
    """One future, or a list of them: nearly always there is at most one task that waits. Those of cancelled tasks are
    dropped, so that polling with a timeout does not collect them."""
    if waiting is None:
        return future
    if type(waiting) is not list:
        return future if waiting.done() else [waiting, future]
    waiting = [one for one in waiting if not one.done()]
    waiting.append(future)
    return waiting


cdef int wake(object waiting) except -1:
    if type(waiting) is list:
        for future in <list>waiting:
            if not future.done():
                future.set_result(None)
    elif not waiting.done():
        waiting.set_result(None)
    return 0


DONE = Done()

cimport cython


cdef class Awaitable:
    # A subclass without fields of its own shares the free list.
    cdef object owner                # what it belongs to
    cdef object inner                # the iterator or coroutine that its steps are passed on to, or None
    cdef object future               # what it waits for, or None
    cdef object result               # what the await expression comes to
    cdef bint done
    cdef object step(self, object value)
    cdef object thrown(self, object exc)
    cdef int closed(self) except -1


@cython.final
cdef class Done(Awaitable):
    pass


@cython.final
cdef class OneTurn(Awaitable):
    pass


@cython.final
cdef class Failing(Awaitable):
    pass


@cython.final
cdef class Later(Awaitable):
    cdef object _function
    cdef object _argument
    cdef Awaitable _awaitable


cdef object ENDED
cdef Done DONE
cdef Failing failing(object error)
cdef Later later(object function, object argument)
cdef object add_waiter(object waiting, object future)
cdef int wake(object waiting) except -1

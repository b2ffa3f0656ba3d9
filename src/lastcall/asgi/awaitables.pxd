cimport cython


cdef class Awaitable:
    cdef object step(self, object value)
    cdef object thrown(self, object exc)
    cdef int closed(self) except -1


@cython.final
cdef class Done(Awaitable):
    pass


@cython.final
cdef class OneTurn(Awaitable):
    cdef bint _yielded


@cython.final
cdef class Later(Awaitable):
    cdef object _function
    cdef object _argument
    cdef Awaitable _awaitable


cdef object ENDED
cdef Done DONE
cdef Later later(object function, object argument)

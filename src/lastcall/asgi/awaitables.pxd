cimport cython


@cython.final
cdef class Done:
    pass


@cython.final
cdef class OneTurn:
    cdef bint _yielded


@cython.final
cdef class Later:
    cdef object _function
    cdef object _argument
    cdef object _awaitable
    cdef object _advance(self)


cdef Done DONE
cdef Later later(object function, object argument)
cdef object raise_thrown(object kind, object value, object traceback)

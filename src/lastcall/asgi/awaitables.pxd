cimport cython


@cython.final
cdef class Done:
    pass


@cython.final
cdef class OneTurn:
    cdef bint _yielded


cdef Done DONE
cdef object raise_thrown(object kind, object value, object traceback)

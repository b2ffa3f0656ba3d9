cimport cython


cdef enum:
    # drain.ladder.Phase, for compiled code
    ANNOUNCED = 2
    DRAINING = 3


@cython.final
cdef class DrainState:
    cdef public int phase
    cdef public double since
    cdef public double margin
    cdef public double farewell
    cdef public bint farewell_over
    cdef public bint listeners_closed
    cdef public bint refusing
    cdef public bint service_goes_on
    cdef public object mover
    cdef public Py_ssize_t moved

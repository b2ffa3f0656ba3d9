from lastcall.drain.state cimport DrainState
from lastcall.notice.running cimport RunningTasks


cdef bint EAGER                      # tasks run their first step at once (CPython 3.12 and later)


cdef class AppRuntime:
    cdef readonly object loop
    cdef readonly object app
    cdef readonly RunningTasks tasks
    cdef readonly dict state            # the lifespan's namespace, or None
    cdef tuple default_headers
    cdef object context                 # every request runs in a copy of it
    cdef dict task_arguments
    cdef readonly object signal         # notice.signal.DrainSignal
    cdef readonly DrainState drain      # the signal's state
    cdef object policies                # drain.policy.PolicyTable, or None
    cdef double timeout_disconnect      # infinity: none
    cdef readonly str asgi_spec         # the version of ASGI's HTTP specification that applications are told
    cdef bint sends_into_void           # before 2.4: send() does nothing when the client has left
    cdef unsigned long thread           # the one that runs the loop
    cdef readonly bint left_open        # some task had its response disconnected, or was cancelled
    cdef bint forked                    # this is a child's copy: control that comes back ends the process
    cdef object leave                   # leave(exception or None) does that

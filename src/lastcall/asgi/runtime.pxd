from lastcall.notice.running cimport RunningTasks
from lastcall.notice.notice cimport DrainNotice


cdef class AppRuntime:
    cdef readonly object loop
    cdef readonly object app
    cdef readonly RunningTasks tasks
    cdef readonly dict state            # the lifespan's namespace, or None
    cdef dict scope_template
    cdef str root_path
    cdef bytes root_path_bytes
    cdef tuple default_headers
    cdef object context                 # every request runs in a copy of it
    cdef dict task_arguments
    cdef readonly object signal         # drain.signal.DrainSignal
    cdef object policies                # drain.policy.PolicyTable, or None
    cdef double timeout_disconnect      # infinity: none
    cdef unsigned long thread           # the one that runs the loop
    cdef double clock(self) noexcept


cdef dict make_scope(AppRuntime runtime, str http_version, str method, str path, bytes raw_path, bytes query_string,
                     list headers, object client, object server, DrainNotice notice)

cimport cython

from lastcall.asgi.http cimport HTTPCycle
from lastcall.asgi.runtime cimport AppRuntime
from lastcall.connection.counts cimport ResponseCounts
from lastcall.connection.scheduler cimport Scheduler


cdef enum Admission:
    CALL              # the application
    HEALTH            # answer_health()
    REFUSE            # 503


cdef class Upgrades:
    cdef int begin(self, object connection, object exchange) except -1


@cython.final
cdef class HTTPService(AppRuntime):
    cdef readonly Scheduler scheduler
    cdef readonly object options           # base.options.HTTPOptions
    cdef readonly bint keep_alive
    cdef long long discard_limit           # bytes of an upload that are read behind an answer that closes
    cdef Py_ssize_t limit_concurrency      # 0: none
    cdef readonly long long requests       # complete heads so far
    cdef long long probes                  # and how many of them were for the health path
    cdef bint refuse_with_retry            # --refuse-event-streams
    cdef long long max_requests            # 0: none
    cdef bint bounded                      # any of the three that follow
    cdef long long limit_requests          # of one connection; 0: none
    cdef double max_age                    # of a connection; infinity: none
    cdef double timeout_request            # infinity: none
    cdef public object random              # a number from 0 to 1: what one of these limits is stretched by, in tenths
    cdef object on_max_requests
    cdef readonly Py_ssize_t backlog_answered  # connections that came in a drain and got an answer
    cdef str ready_path                    # None: no health path
    cdef str live_path
    cdef public bint lifespan_died         # its task ended with an exception: not ready any more
    cdef bint warned_websocket
    cdef Upgrades websockets               # None: WebSockets are not spoken
    cdef readonly ResponseCounts counts    # None: nobody wants to know
    cdef bint in_access_log
    cdef int admit(self, str path) except -1
    cdef int warn_websocket(self) except -1
    cdef int answer(self, HTTPCycle cycle, int status, bytes detail) except -1
    cdef int send_retry(self, HTTPCycle cycle) except -1
    cdef int answer_health(self, HTTPCycle cycle, str path) except -1
    cdef int count(self, HTTPCycle cycle) except -1
    cdef int record(self, HTTPCycle cycle, object client, str http_version) except -1
    cdef int record_upgrade(self, HTTPCycle cycle, object client) except -1

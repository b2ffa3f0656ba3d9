# cython: language_level=3
"""What every HTTP version does alike for a worker's requests: admission, health, limits, the server's own answers, the
access record."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport INFINITY

import logging
import os
from http import HTTPStatus

from lastcall.asgi.http cimport HTTPCycle
from lastcall.asgi.runtime cimport AppRuntime
from lastcall.base.options import HTTPOptions
from lastcall.connection.counts cimport ResponseCounts
from lastcall.connection.scheduler cimport Scheduler
from lastcall.drain.state cimport ANNOUNCED
from lastcall.notice.running cimport RunningTasks
from lastcall.wire.head cimport check_head

cdef object logger = logging.getLogger("lastcall.error")

# With a --limit-body of 1 MiB no 413 would ever reach a client that writes its whole upload before it reads.
cdef long long DISCARD_AT_LEAST = 64 * 1024 * 1024

cdef tuple PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")
cdef tuple NO_STORE = (b"cache-control", b"no-store")
cdef tuple RETRY_AFTER = (b"retry-after", b"1")
cdef tuple ALLOW = (b"allow", b"GET, HEAD")
cdef tuple EVENT_STREAM = (b"content-type", b"text/event-stream")

cdef enum:
    # After so many milliseconds an EventSource that was refused comes again: elsewhere, in a stop; else as the load
    # allows, at random, or all of them would come together.
    RETRY_IN_STOP = 1000
    RETRY_LEAST = 3000
    RETRY_MOST = 8000


cdef class Upgrades:
    """What turns connections of HTTP into those of another protocol."""

    cdef int begin(self, object connection, object exchange) except -1:
        """The head of a request that asks for it is read, and admitted: answer in the exchange, now or later."""
        raise NotImplementedError


@cython.final
cdef class HTTPService(AppRuntime):
    """What all HTTP connections of one worker share. ``on_max_requests()`` is called once, at the request that reaches
    ``options.limit_max_requests``. ``counts`` are kept if they are given. ``access_log`` False: its requests are no client's, and
    have no line there."""

    def __init__(self, app, RunningTasks tasks not None, Scheduler scheduler not None, options=None, *, state=None,
                 on_max_requests=None, context=None, signal=None, policies=None, double timeout_disconnect=3.0,
                 str asgi_spec="2.5", ResponseCounts counts=None, bint access_log=True, Upgrades websockets=None):
        if options is None:
            options = HTTPOptions()
        AppRuntime.__init__(
            self, app, scheduler.loop, tasks, state=state, default_headers=options.headers, context=context,
            signal=signal, policies=policies, timeout_disconnect=timeout_disconnect, asgi_spec=asgi_spec,
        )
        self.scheduler = scheduler
        scheduler.tasks = tasks
        self.options = options
        if options.health_path:
            self.ready_path = options.health_path + "/ready"
            self.live_path = options.health_path + "/live"
        self.keep_alive = options.timeout_keep_alive > 0
        self.discard_limit = max(options.limit_body or 0, DISCARD_AT_LEAST)
        self.limit_concurrency = options.limit_concurrency or 0
        self.refuse_with_retry = options.refuse_event_streams == "retry"
        self.max_requests = options.limit_max_requests or 0
        self.on_max_requests = on_max_requests
        self.limit_requests = options.limit_requests_per_connection or 0
        self.max_age = options.max_connection_age
        self.timeout_request = options.timeout_request
        self.bounded = self.limit_requests > 0 or self.max_age < INFINITY or self.timeout_request < INFINITY
        if self.bounded:
            import random                      # slow to import, and for few servers
            self.random = random.random
        self.counts = counts
        self.in_access_log = access_log
        self.websockets = websockets

    # -- admission ------------------------------------------------------------------------------------------------

    cdef int admit(self, str path) except -1:
        """A request's head is complete: count it, and say what becomes of it (an Admission). The one place where the limit on
        concurrent requests, and the end of a stop's grace, refuse one."""
        self.requests += 1
        if self.ready_path is not None and (path == self.ready_path or path == self.live_path):
            self.probes += 1
            return HEALTH
        if self.max_requests and self.requests - self.probes == self.max_requests and (
            self.on_max_requests is not None
        ):
            self.on_max_requests()
        if self.drain.refusing or (self.limit_concurrency and self.tasks.places >= self.limit_concurrency):
            return REFUSE
        return CALL

    cdef int warn_websocket(self) except -1:
        """A client asked for a WebSocket: say once that it will not get one."""
        if not self.warned_websocket:
            self.warned_websocket = True
            logger.warning(
                "A client asked for a WebSocket, and gets none here: it is answered as plain HTTP (RFC 9110 7.8). "
                "WebSockets are off with --ws none."
            )
        return 0

    # -- the server's own answers ---------------------------------------------------------------------------------

    cdef int answer(self, HTTPCycle cycle, int status, bytes detail) except -1:
        """Answer a request in the application's place: the status's phrase, and ``detail`` if there is any."""
        if status == 503 and self.refuse_with_retry and cycle.wants_events():
            return self.send_retry(cycle)
        cdef bytes body = HTTPStatus(status).phrase.encode("ascii") + (b": " + detail if detail else b"") + b"\n"
        cdef list headers = [PLAIN_TEXT, (b"content-length", b"%d" % len(body))]
        if status == 503:
            headers.append(RETRY_AFTER)
        cycle.head = check_head(status, headers, self.default_headers)
        return cycle.write_body(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), False)

    cdef int send_retry(self, HTTPCycle cycle) except -1:
        """Refuse an EventSource: any 4xx or 5xx would end it for good (HTML 9.2.3, "fail the connection"), so it gets an
        event stream that says nothing but when to come again."""
        cdef int after = RETRY_IN_STOP
        cdef bytes body
        if self.drain.phase < ANNOUNCED:
            after = RETRY_LEAST + int.from_bytes(os.urandom(4), "big") % (RETRY_MOST - RETRY_LEAST + 1)
        body = b"retry: %d\n\n" % after
        cycle.refused = True
        cycle.head = check_head(
            200, [EVENT_STREAM, NO_STORE, (b"content-length", b"%d" % len(body))], self.default_headers
        )
        return cycle.write_body(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), False)

    cdef int answer_health(self, HTTPCycle cycle, str path) except -1:
        """``--health-path``: ready until the stop order, or the lifespan's death; live as long as this loop answers.

        A worker that is replaced speaks for the service: a load balancer's check on a connection that it still has
        must not take the whole host out of service.
        """
        cdef int status = 200
        cdef bytes body = b"ok\n"
        cdef list headers = [PLAIN_TEXT, NO_STORE]
        if cycle.method not in ("GET", "HEAD"):
            status, body = 405, b"Method Not Allowed\n"
            headers.append(ALLOW)
        elif path == self.ready_path and self.drain.phase >= ANNOUNCED and not (
            self.drain.service_goes_on or self.drain.mover is not None
        ):
            status, body = 503, b"stopping\n"
        elif path == self.ready_path and self.lifespan_died:
            status, body = 503, b"lifespan failed\n"
        headers.append((b"content-length", b"%d" % len(body)))
        cycle.ended = cycle.probe = True
        cycle.head = check_head(status, headers, self.default_headers)
        return cycle.write_body(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), False)

    # -- the records ----------------------------------------------------------------------------------------

    cdef int count(self, HTTPCycle cycle) except -1:
        """Count a response, unless its end says nothing of the application: its client has left, or it was we who cut it."""
        cdef bint whole = cycle.whole()
        if whole or (cycle.ended and cycle.incomplete and not (cycle.cancelled or cycle.disconnected)):
            self.counts.add(not whole or cycle.head.status >= 500, cycle.answered - cycle.since)
        return 0

    cdef int record(self, HTTPCycle cycle, object client, str http_version) except -1:
        """A response is complete, or was cut: count it, and tell the access log."""
        cdef bytes target
        cdef str mark = None
        if self.counts is not None and cycle.head is not None and not cycle.probe:
            self.count(cycle)
        if cycle.head is not None and self.in_access_log and self.scheduler.access.wants():
            target = cycle.raw_path + b"?" + cycle.query_string if cycle.query_string else cycle.raw_path
            if not cycle.whole():
                mark = "cut"
            elif cycle.refused:
                mark = "refused"
            self.scheduler.access.record(
                client, cycle.method, target, http_version, cycle.head.status,
                self.scheduler.tick() - cycle.since, cycle.body_sent, mark,
            )
        return 0

    cdef int record_upgrade(self, HTTPCycle cycle, object client) except -1:
        """The connection speaks another protocol from now on: tell the access log of the 101."""
        cdef bytes target
        if self.in_access_log and self.scheduler.access.wants():
            target = cycle.raw_path + b"?" + cycle.query_string if cycle.query_string else cycle.raw_path
            self.scheduler.access.record(
                client, cycle.method, target, "1.1", 101, self.scheduler.tick() - cycle.since, 0, None,
            )
        return 0

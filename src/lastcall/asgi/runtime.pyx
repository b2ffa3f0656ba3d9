# cython: language_level=3
"""What the requests of one worker have in common, and the scope that each of them gets (ASGI HTTP spec 2.5)."""

from cpython.dict cimport PyDict_Copy

import contextvars
import sys

from lastcall.notice.running cimport RunningTasks
from lastcall.notice.notice cimport DrainNotice
from lastcall.notice.signal import DrainSignal

cdef bint EAGER = sys.version_info >= (3, 12)
cdef str GET = "GET"
cdef str HTTP_1_1 = "1.1"
cdef dict ASGI_VERSIONS = {"version": "3.0", "spec_version": "2.5"}


cdef class AppRuntime:
    """What the requests of one worker have in common: the application, its loop, its state, its tasks."""

    def __init__(self, app, loop, RunningTasks tasks not None, *, state=None, str root_path="", default_headers=(),
                 str scheme="http", context=None, signal=None, policies=None, double timeout_disconnect=3.0):
        """``state`` is the lifespan's namespace (copied per request) or None; ``context`` a contextvars.Context.

        ``signal`` is the server's DrainSignal, ``policies`` its PolicyTable or None. ``timeout_disconnect``: seconds
        that the task of a response may go on when its client has left.
        """
        self.signal = DrainSignal() if signal is None else signal
        self.policies = policies
        self.timeout_disconnect = timeout_disconnect
        self.app = app
        self.loop = loop
        self.tasks = tasks
        self.state = state
        self.root_path = root_path
        self.root_path_bytes = root_path.encode("utf-8")
        self.default_headers = tuple(default_headers)
        self.context = contextvars.copy_context() if context is None else context
        self.task_arguments = {"loop": loop, "context": None}
        if EAGER:
            self.task_arguments["eager_start"] = True
        # The order of the keys is what a reader of a printed scope expects; the values are replaced per request.
        self.scope_template = {
            "type": "http",
            "asgi": None,
            "http_version": "1.1",
            "method": "GET",
            "scheme": scheme,
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": root_path,
            "headers": None,
            "client": None,
            "server": None,
            "extensions": None,
        }
        if state is not None:
            self.scope_template["state"] = None

    cdef double clock(self) noexcept:
        """Seconds on the loop's clock; the connection room knows a cheaper way."""
        return 0.0


cdef dict make_scope(AppRuntime runtime, str http_version, str method, str path, bytes raw_path, bytes query_string,
                     list headers, object client, object server, DrainNotice notice):
    """The HTTP connection scope. Every dict in it is fresh, so nothing an application writes reaches another request."""
    cdef dict scope = PyDict_Copy(runtime.scope_template)
    if runtime.root_path_bytes and path != "*":
        # ASGI: ``path`` includes ``root_path``.
        path = runtime.root_path + path
        raw_path = runtime.root_path_bytes + raw_path
    scope["asgi"] = PyDict_Copy(ASGI_VERSIONS)
    # What equals the template's value need not be set again.
    if http_version is not HTTP_1_1:
        scope["http_version"] = http_version
    if method is not GET:
        scope["method"] = method
    scope["path"] = path
    scope["raw_path"] = raw_path
    if query_string:
        scope["query_string"] = query_string
    scope["headers"] = headers
    scope["client"] = client
    scope["server"] = server
    scope["extensions"] = {"lastcall.drain": {"notice": notice}}
    if runtime.state is not None:
        scope["state"] = PyDict_Copy(runtime.state)
    return scope

# cython: language_level=3
"""The scopes of HTTP requests (ASGI HTTP spec 2.5): what a listener's requests have in common, and what differs."""

cimport cython
from cpython.dict cimport PyDict_Copy

from lastcall.notice.notice cimport DrainNotice

cdef str GET = "GET"
cdef str HTTP_1_1 = "1.1"
# Copying a dict and replacing a value is cheaper than making one.
cdef dict EXTENSIONS = {"lastcall.drain": None}
cdef dict DRAIN = {"notice": None}


@cython.final
cdef class HTTPScopes:
    """Makes the scopes of the requests that come in by one listener.

    ``scheme`` and ``root_path`` are the listener's; ``tls`` is what its requests find as the extension ``tls`` (ASGI
    TLS extension), or None; ``state`` is the lifespan's namespace, or None. ``spec_version`` is that of the HTTP
    specification.
    """

    def __init__(self, *, str scheme="http", str root_path="", dict tls=None, dict state=None, str spec_version="2.5"):
        self.versions = {"version": "3.0", "spec_version": spec_version}
        self.root_path = root_path
        self.root_path_bytes = root_path.encode("utf-8")
        self.tls = tls
        self.state = state
        # The order of the keys is what a reader of a printed scope expects; the values are replaced per request.
        self.template = {
            "type": "http",
            "asgi": None,
            "http_version": HTTP_1_1,
            "method": GET,
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
            self.template["state"] = None

    cdef dict make(self, str http_version, str method, str path, bytes raw_path, bytes query_string, list headers,
                   object client, object server, DrainNotice notice):
        """A scope. Every dict in it is fresh, so nothing an application writes reaches another request."""
        cdef dict scope = PyDict_Copy(self.template)
        cdef dict extensions = PyDict_Copy(EXTENSIONS)
        cdef dict drain = PyDict_Copy(DRAIN)
        if self.root_path_bytes and path != "*":
            # ASGI: ``path`` includes ``root_path``.
            path = self.root_path + path
            raw_path = self.root_path_bytes + raw_path
        drain["notice"] = notice
        extensions["lastcall.drain"] = drain
        scope["asgi"] = PyDict_Copy(self.versions)
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
        if self.tls is not None:
            extensions["tls"] = PyDict_Copy(self.tls)
        scope["extensions"] = extensions
        if self.state is not None:
            scope["state"] = PyDict_Copy(self.state)
        return scope

cimport cython

from lastcall.notice.notice cimport DrainNotice


@cython.final
cdef class HTTPScopes:
    cdef dict template
    cdef dict versions                  # "asgi"
    cdef readonly str root_path
    cdef bytes root_path_bytes
    cdef dict state                     # the lifespan's namespace, or None
    cdef dict tls                       # None: not encrypted
    cdef dict make(self, str http_version, str method, str path, bytes raw_path, bytes query_string, list headers,
                   object client, object server, DrainNotice notice)

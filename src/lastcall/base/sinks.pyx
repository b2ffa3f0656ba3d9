# cython: language_level=3
"""The sink that connections report finished responses to. ``observe`` implements it, ``server`` injects it."""


cdef class AccessSink:
    """A sink that drops everything. Subclasses override ``record`` and ``flush`` in compiled code.

    ``record`` is called once per response, when its last byte was queued or it was cut: ``client`` is the scope's
    ``client`` value (a (host, port) pair, or None), ``method`` a str, ``target`` the raw bytes of path and query,
    ``http_version`` "1.0" or "1.1", ``duration`` seconds since the head was read, ``bytes_sent`` body bytes. ``mark`` is
    None for what is as its status says, else ``cut``, or another word that tells the line from an ordinary one.
    None of its methods may raise, block or fail a request. ``wants`` is asked before each ``record``, which then need not
    be made. ``flush`` is called once per loop turn, after the sockets.
    """

    cdef bint wants(self) noexcept:
        """Whether the next record has a reader."""
        return self.enabled

    cdef void record(self, object client, object method, object target, object http_version, int status,
                     double duration, long long bytes_sent, str mark) noexcept:
        pass

    cpdef void flush(self) noexcept:
        """Write what was recorded."""
        pass

# cython: language_level=3
"""Where a server's stop stands, for those who must know at every request: connections, notices and drivers.

The shutdown controller alone writes it, while it carries out the ladder's actions. It is compiled because it is read
at the head of each request and of each response.
"""

cimport cython
from libc.math cimport INFINITY

from lastcall.drain.ladder import MARGIN, Phase

assert (ANNOUNCED, DRAINING) == (Phase.ANNOUNCED, Phase.DRAINING)


@cython.final
cdef class DrainState:
    """One server's. ``phase`` is a :class:`~lastcall.drain.ladder.Phase`; from ``ANNOUNCED`` on every answer closes its
    connection. ``since``: when ``DRAINING`` began, in seconds on the loop's clock, infinity before; connections that
    come later came in the drain.

    ``margin``: the seconds between being disconnected and being cancelled. ``farewell``: the seconds that a response
    whose policy is *close* has after the notice. ``farewell_over``: they are disconnected from now on.
    ``listeners_closed``: nobody new comes, and a connection that is idle is closed. ``refusing``: a request that still
    comes is answered 503. ``service_goes_on``: only this worker stops, and others serve: the health path stays ready.

    ``mover``: None, or who passes idle connections on to a successor (``net.moving.Mover``). While it is set,
    connections that can be moved are neither closed nor told to close: each calls ``mover.offer(connection)`` when it
    has nothing to do. The controller calls ``mover.stop()`` when responses are disconnected, which takes it away.
    ``moved``: how many connections the successor has got.
    """

    def __init__(self, phase=Phase.STARTING):
        self.phase = phase
        self.since = INFINITY
        self.margin = MARGIN

    @property
    def stopping(self):
        """True from the stop order on, also while the server still accepts (``--drain-delay``)."""
        return self.phase >= ANNOUNCED

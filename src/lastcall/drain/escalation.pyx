# cython: language_level=3
"""How often a person or a supervisor has asked: the first stop signal, the second, the third. Pure.

It is compiled because it is counted twice: by the handler in Python, and by the watchdog (``server.watchdog``), which
has to go on counting where Python hears nothing. Both use ``press`` on the same times, so that they agree.
"""

cimport cython
from libc.math cimport INFINITY

DEBOUNCE = 0.5
"""Seconds within which two stop signals are one: a terminal sends to the whole process group, and so does a parent."""

cdef double TOGETHER = DEBOUNCE


@cython.linetrace(False)  # a traced function takes the GIL
cdef void asked_nothing(Asked* asked) noexcept nogil:
    """Nobody has asked yet."""
    asked.level = 0
    asked.last = -INFINITY


@cython.linetrace(False)
cdef bint press(Asked* asked, double now, int weight) noexcept nogil:
    """See ``Escalation.press``."""
    cdef bint together = now - asked.last < TOGETHER
    cdef int before = asked.level
    asked.last = now
    if not together:
        asked.level = min(3, before + weight)
    elif weight > before:
        asked.level = weight
    return asked.level > before


@cython.final
cdef class Escalation:
    """Counts stop signals."""

    def __init__(self):
        asked_nothing(&self.asked)

    @property
    def level(self):
        """0 before the first signal, at most 3."""
        return self.asked.level

    def press(self, double now, int weight=1):
        """One more signal, at ``now`` seconds; ``weight`` 2 is SIGQUIT, the first and the second together.

        Returns whether it counts. A signal that is debounced can still raise the level to its own weight: a SIGQUIT
        right after a SIGTERM means what it says.
        """
        return press(&self.asked, now, weight)

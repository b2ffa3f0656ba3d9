# cython: language_level=3
"""Timeouts of many connections under one coarse timer.

Every kind of timeout has one length for all connections, so a deadline that is set is later than all of its kind that
were set before: each list is in order without sorting, setting and unsetting are a few pointer writes, and ten thousand
idle connections cost nothing until the first of them is due. Time is an argument.
"""

cimport cython
from cpython.ref cimport PyObject

from libc.math cimport INFINITY


cdef class Timed:
    """Somebody who owns nodes."""

    cdef int expired(self, int kind) except -1:
        """A deadline has passed; its node is no longer set."""
        return 0

    cdef int broken(self) except -1:
        """A method of this object raised: a bug of ours, after which nothing about its state is sure."""
        return 0


cdef void unset(Node* node) noexcept:
    """Take a node out of its list, if it is in one."""
    if node.previous != NULL:
        node.previous.next = node.next
        node.next.previous = node.previous
        node.previous = node.next = NULL


@cython.final
cdef class Deadlines:
    """One list per kind. Timeouts are seconds; infinity means that a kind is never set."""

    def __cinit__(self, double header=10.0, double body=60.0, double keep_alive=75.0, double write=60.0,
                  double linger=1.0, double discard=5.0, double ws_ping=INFINITY, double ws_pong=INFINITY,
                  double age=INFINITY, double request=INFINITY):
        cdef int kind
        for kind in range(KINDS):
            self._heads[kind].next = self._heads[kind].previous = &self._heads[kind]
        self._timeouts[HEADER] = header
        self._timeouts[BODY] = body
        self._timeouts[KEEP_ALIVE] = keep_alive
        self._timeouts[WRITE] = write
        self._timeouts[LINGER] = linger
        self._timeouts[DISCARD] = discard
        self._timeouts[WS_PING] = ws_ping
        self._timeouts[WS_PONG] = ws_pong
        self._timeouts[AGE] = age
        self._timeouts[REQUEST] = request

    def __dealloc__(self):
        # The garbage collector may free this before the connections whose nodes are in it.
        cdef int kind
        for kind in range(KINDS):
            while self._heads[kind].next != NULL and self._heads[kind].next != &self._heads[kind]:
                unset(self._heads[kind].next)

    cdef void set(self, Node* node, Timed owner, int kind, double now) noexcept:
        """Set (or set anew) the deadline of ``node``: ``now`` plus the timeout of its kind."""
        cdef Node* head = &self._heads[kind]
        unset(node)
        if self._timeouts[kind] == INFINITY:
            return
        node.owner = <PyObject*>owner
        node.kind = kind
        node.at = now + self._timeouts[kind]
        node.previous = head.previous
        node.next = head
        head.previous.next = node
        head.previous = node

    cdef void set_at(self, Node* node, Timed owner, int kind, double at, Node* behind) noexcept:
        """Set the deadline of ``node`` to ``at``: what another process has left of it. Its place in the list is looked
        for; a node of the same kind that is set, and not later, may say where to begin (``behind``), or NULL."""
        cdef Node* head = &self._heads[kind]
        cdef Node* place = head
        unset(node)
        if at == INFINITY:
            return
        if behind != NULL and behind.previous != NULL and behind.kind == kind and behind.at <= at:
            place = behind
        while place.next != head and place.next.at <= at:
            place = place.next
        node.owner = <PyObject*>owner
        node.kind = kind
        node.at = at
        node.previous = place
        node.next = place.next
        place.next.previous = node
        place.next = node

    cdef double latest(self, int kind, double now) noexcept:
        """The deadline that ``set`` would give now; infinity for a kind that is never set."""
        return now + self._timeouts[kind]

    cdef double first(self) noexcept:
        """When the next deadline is due; infinity without any."""
        cdef double found = INFINITY
        cdef int kind
        for kind in range(KINDS):
            if self._heads[kind].next != &self._heads[kind] and self._heads[kind].next.at < found:
                found = self._heads[kind].next.at
        return found

    cdef int expire(self, double now) except -1:
        """Tell every owner whose deadline has passed."""
        cdef int kind, told = 0
        cdef Node* node
        cdef Timed owner
        for kind in range(KINDS):
            while True:
                node = self._heads[kind].next
                if node == &self._heads[kind] or node.at > now:
                    break
                owner = <Timed>node.owner
                unset(node)
                try:
                    owner.expired(kind)
                except Exception:
                    owner.broken()
                    raise
                told += 1
        return told

"""Which listener of a group a new connection goes to, and who gets in at all: classic BPF programs of Linux.

TCP sockets that listen on one address with SO_REUSEPORT are a *group*. For each handshake the kernel runs the group's
program, if it has one (SO_ATTACH_REUSEPORT_CBPF, socket(7)), and what that returns is the index of the member. What was
tried on Linux 6.18, and holds since 4.6 by net/core/sock_reuseport.c:

- A member's index is its place in the order of ``listen()``, not of ``bind()``. The place of one that is closed is
  taken by the last.
- An index of no member is no failure: the member is then chosen by a hash of both addresses, among all.
- Any member's socket will do to attach, and the new program takes the old one's place in one step.
- A program sees the packet, and the kernel's ancillary data: SKF_AD_RANDOM is a fresh random number. It keeps nothing
  from one packet to the next, so it can spread by chance, but not in turn.

No privilege is needed for any of this.
"""

from __future__ import annotations

import array
import contextlib
import errno
import select
import socket
import struct
import sys
from collections.abc import Collection, Sequence

Instruction = tuple[int, int, int, int]
"""``struct sock_filter`` of <linux/filter.h>: code, jump if true, jump if false, operand."""

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
SO_ATTACH_REUSEPORT_CBPF = 51
"""Of <asm-generic/socket.h>, which holds for all common architectures. The module ``socket`` does not have them."""

LOAD_WORD, LOAD_BYTE = 0x20, 0x30  # BPF_LD | BPF_ABS, with BPF_W and BPF_B
ADD, MODULO = 0x04, 0x94  # BPF_ALU | BPF_K
AT_LEAST, ANY_BIT = 0x35, 0x45  # BPF_JMP | BPF_K: JGE, JSET
RETURN, RETURN_A = 0x06, 0x16

RANDOM = 0x1_0000_0000 - 0x1000 + 56
"""The offset at which SKF_AD_RANDOM is read (SKF_AD_OFF + SKF_AD_RANDOM)."""

WORD = 1 << 32

SYN_ONLY: tuple[Instruction, ...] = (
    (LOAD_BYTE, 0, 0, 13),
    (ANY_BIT, 0, 1, 0x02),
    (RETURN, 0, 0, 0),
    (RETURN, 0, 0, WORD - 1),
)
"""Drops segments that carry SYN, and nothing else: "drop all" would also eat the last ACK of a handshake. A filter on a
TCP socket sees the segment from its TCP header on; byte 13 holds the flags, and bit 1 of it is SYN (RFC 9293)."""


def program(
    count: int, *, away: Collection[int] = (), favoured: int | None = None, share: float = 0.0
) -> tuple[Instruction, ...]:
    """The program of a group of ``count``: an even spread over the indices below it.

    Those in ``away`` get nothing. ``favoured`` gets ``share`` (0 to 1) of all, the others the rest. It never returns
    ``count`` or more, so that one who listens next is not reached before the program is replaced.
    Raises ValueError if nobody is left to give a connection to.
    """
    skipped = sorted(index for index in {*away, favoured} if index is not None and index < count)
    ordinary = count - len(skipped)
    threshold = 0 if favoured is None or favoured in away else min(WORD, round(share * WORD))
    if threshold == WORD or (threshold and not ordinary):
        return ((RETURN, 0, 0, favoured or 0),)
    if not ordinary:
        raise ValueError("no listener is left for new connections")
    steps: list[Instruction] = []
    if threshold:
        steps += ((LOAD_WORD, 0, 0, RANDOM), (AT_LEAST, 1, 0, threshold), (RETURN, 0, 0, favoured or 0))
    steps += ((LOAD_WORD, 0, 0, RANDOM), (MODULO, 0, 0, ordinary))
    for index in skipped:  # in ascending order: A, a place among the ordinary ones, becomes the index of that place
        steps += ((AT_LEAST, 0, 1, index), (ADD, 0, 0, 1))
    return (*steps, (RETURN_A, 0, 0, 0))


def available() -> bool:
    """Whether this system lets a program choose: asked of the kernel, by a socket that is thrown away.

    Raises OSError where that says nothing: no descriptor, no memory.
    """
    if sys.platform != "linux":
        return False  # elsewhere SO_REUSEPORT gives all to one, or balances without being told how
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            steer(sock, program(1))
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            raise
        return False  # ENOPROTOOPT: a system that emulates Linux
    return True


def steer(sock: socket.socket, steps: Sequence[Instruction]) -> None:
    """Give the group of a listening socket a program, in the place of what it has. Raises OSError."""
    _attach(sock, SO_ATTACH_REUSEPORT_CBPF, steps)


def drop_newcomers(sock: socket.socket) -> bool:
    """Let nobody new in at a TCP listener, whoever holds it: new SYNs are dropped, handshakes under way are finished.

    Only for the end of a service, and then for each member of a group: dropping at one member of a group that goes on
    would leave the clients whom the program sends there without an answer. False where the system has no such filter.
    """
    if sys.platform != "linux":
        return False
    try:
        _attach(sock, SO_ATTACH_FILTER, SYN_ONLY)
    except OSError:
        return False
    return True


def let_newcomers_in(sock: socket.socket) -> None:
    """Undo ``drop_newcomers``, whoever did it; nothing where nobody has."""
    with contextlib.suppress(OSError):  # ENOENT: there is no filter
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def is_shut(sock: socket.socket) -> bool:
    """Whether nobody new gets in at a listener, by whoever's doing: ``drop_newcomers``, or SHUT_RD of a unix socket."""
    if sys.platform != "linux":
        return False
    if sock.family == socket.AF_UNIX:
        waiting = select.poll()
        waiting.register(sock, select.POLLRDHUP)
        return bool(waiting.poll(0))
    return bool(sock.getsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, 8 * len(SYN_ONLY)))  # SO_GET_FILTER is the same


def _attach(sock: socket.socket, option: int, steps: Sequence[Instruction]) -> None:
    code = array.array("B", b"".join(struct.pack("=HBBI", *step) for step in steps))
    # struct sock_fprog: the number of instructions, and where they are; the kernel copies them.
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@HP", len(steps), code.buffer_info()[0]))

"""Listening sockets: bound early, so that a taken port fails before the application is imported; listening late.

A port that is bound but does not listen refuses connections, so nobody is kept waiting while the application starts.
What is taken in the meantime all the same is found out in ``listen()``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Iterable

from lastcall.base.errors import ConfigError, StartupError
from lastcall.base.options import BindSpec
from lastcall.net.listener import Listener, Owner, inode_of

DEFAULT_MODE = 0o666
"""Of the file of a unix socket: everybody on this machine may connect, as with a port of 127.0.0.1."""


def bind(specs: tuple[BindSpec, ...]) -> list[Listener]:
    """Bind every address, or none; raises StartupError (exit code 3) that names the address."""
    listeners: list[Listener] = []
    only_v6 = any(spec.kind == "tcp" and ":" not in spec.host for spec in specs)
    try:
        for spec in specs:
            if spec.kind == "tcp":
                listeners.append(_bind_tcp(spec, only_v6))
            elif spec.kind == "unix":
                listeners.append(_bind_unix(spec, listeners))
            else:
                listeners.append(_from_fd(spec))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def given(sockets: object) -> list[socket.socket]:
    """The sockets that the caller of ``serve(sockets=[...])`` made, bound or already listening; each can be served.

    Raises ConfigError that names what cannot. Then all that are sockets are closed, as they are at the end of a server.
    """
    items = list(sockets) if isinstance(sockets, Iterable) else []
    try:
        if not items:
            at_least = "a list of at least one bound stream socket (without it, the configured addresses)"
            raise ConfigError("sockets", sockets, at_least)
        for item in items:
            reason = _unusable(item) if isinstance(item, socket.socket) else "no socket"
            if reason is None and sum(other is item for other in items) > 1:
                reason = "given twice"
            if reason is not None:
                raise ConfigError("sockets", item, f"bound stream sockets: this one is {reason}")
    except ConfigError:
        for item in items:
            if isinstance(item, socket.socket):
                item.close()
        raise
    return items


def adopt(sock: socket.socket, owner: Owner = Owner.INHERITED) -> Listener:
    """A listener on one of those that ``given()`` has let through, or that the parent has made for its workers."""
    return _prepared(sock, owner)


def _unusable(sock: socket.socket) -> str | None:
    """Why nobody can be served on a socket that somebody else has made; None if there is no reason."""
    if sock.fileno() < 0:
        return "closed"
    if sock.type != socket.SOCK_STREAM:
        return "no stream socket"
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return "neither a TCP nor a unix socket"
    if (ssl := sys.modules.get("ssl")) is not None and isinstance(sock, ssl.SSLSocket):
        return "one of TLS, which comes with a later release"  # its clients would be taken for speakers of plain HTTP
    with contextlib.suppress(OSError):
        sock.getpeername()
        return "connected"
    name = sock.getsockname()
    # listen() would bind one without an address to a port that nobody knows.
    unbound = not name if sock.family == socket.AF_UNIX else name[1] == 0
    return "bound to no address" if unbound else None


def _prepared(sock: socket.socket, owner: Owner) -> Listener:
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # Accepted connections inherit it: one call here instead of one per connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Listener(sock, owner)


def _bind_tcp(spec: BindSpec, only_v6: bool) -> Listener:
    # As bytes it goes to the resolver as it is; as str it would go through the IDNA codec, even where it is ASCII, and
    # importing that takes a hundredth of a start.
    host = spec.host.encode() if spec.host.isascii() else spec.host
    try:
        found = socket.getaddrinfo(host or None, spec.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise StartupError(f"cannot listen on {spec}: {getattr(exc, 'strerror', None) or exc}") from exc
    # "localhost" may be both ::1 and 127.0.0.1: IPv4 first, as clients without IPv6 are the commoner kind.
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    family, _, _, _, address = found[0]
    try:
        return _prepared(_bound(family, address, only_v6=only_v6), Owner.OURS)
    except OSError as exc:
        raise StartupError(f"cannot listen on {spec}: {exc.strerror or exc}") from exc


def _bound(
    family: int, address: tuple[str | int, ...] | tuple[int, bytes], *, only_v6: bool, among_ours: bool = False
) -> socket.socket:
    """A TCP socket that is bound and does not listen; raises OSError. ``among_ours``: it joins a group of listeners."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if among_ours:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and only_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        # It has done its work against TIME_WAIT. Left on, it would let everybody else who has it bind here too, as long
        # as nobody listens; listen() sets it again.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        sock.close()
        raise
    return sock


def beside(listener: Listener) -> Listener:
    """One more listener at the address of one that has SO_REUSEPORT; raises OSError."""
    sock = listener.sock
    return _prepared(_bound(sock.family, sock.getsockname(), only_v6=_only_v6(sock), among_ours=True), Owner.OURS)


def check_alone(listeners: list[Listener]) -> None:
    """Raise OSError if anybody else listens at the address of these, which are bound and do not listen yet.

    With SO_REUSEPORT and our user's identity they could have come after us, and would be of one group with us: so a
    socket without it tries the address.
    """
    for listener in listeners:
        # Then the address is free for others that have it too, as long as nobody listens. listen() sets it anyway.
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock = listeners[0].sock
    _bound(sock.family, sock.getsockname(), only_v6=_only_v6(sock)).close()


def _only_v6(sock: socket.socket) -> bool:
    return sock.family == socket.AF_INET6 and sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) != 0


def passed(fd: int, spec: BindSpec, *, slot: bool) -> Listener:
    """In a worker: the listener of a descriptor that the parent has passed, which is the listener's from now on.

    ``slot``: it is a slot's own; else it is one that all workers share.
    """
    shared = Owner.INHERITED if spec.kind == "fd" else Owner.SHARED
    os.set_inheritable(fd, False)
    return Listener(socket.socket(fileno=fd), Owner.SLOT if slot else shared)


def _bind_unix(spec: BindSpec, earlier: list[Listener]) -> Listener:
    # Not abspath(), which takes "..", behind a symbolic link, for something else than the kernel does. To bind() the
    # name goes as it came: an absolute one may be too long.
    path = spec.path if os.path.isabs(spec.path) else os.path.join(os.getcwd(), spec.path)
    found = inode_of(path)
    if found is not None and any(listener.inode == found for listener in earlier):
        raise StartupError(f"cannot listen on {spec}: it is given twice")
    try:
        kept = _clear_stale_socket(spec.path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as exc:
        raise StartupError(f"cannot listen on {spec}: {exc.strerror or exc}") from exc
    made = False
    try:
        sock.bind(spec.path)
        made = True
        os.chmod(path, spec.mode if spec.mode is not None else DEFAULT_MODE if kept is None else kept)
        status = os.stat(path)
    except OSError as exc:
        sock.close()
        if made:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise StartupError(f"cannot listen on {spec}: {exc.strerror or exc}") from exc
    listener = _prepared(sock, Owner.OURS)
    listener.inode, listener.path = (status.st_dev, status.st_ino), path
    return listener


def _clear_stale_socket(path: str) -> int | None:
    """Remove the file of a server that is gone, and return its mode; refuse to take the place of one that answers."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StartupError(f"cannot listen on unix:{path}: {exc.strerror}") from exc
    if not stat.S_ISSOCK(mode):
        raise StartupError(f"cannot listen on unix:{path}: a file that is not a socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError as exc:
            if exc.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                # EAGAIN: its backlog is full, so it lives. EACCES: not ours to judge.
                raise StartupError(f"cannot listen on unix:{path}: {exc.strerror or exc}") from exc
        else:
            raise StartupError(f"cannot listen on unix:{path}: another server answers there")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return stat.S_IMODE(mode)


def _from_fd(spec: BindSpec) -> Listener:
    fd = -1
    try:
        fd = os.dup(spec.fd)
        os.set_inheritable(spec.fd, False)  # it was inherited for us, not for what the application starts
        sock = socket.socket(fileno=fd)
    except OSError as exc:
        if fd >= 0:
            os.close(fd)
        raise StartupError(f"cannot listen on {spec}: {exc.strerror or exc}") from exc
    reason = _unusable(sock)
    if reason is not None:
        sock.close()
        raise StartupError(f"cannot listen on {spec}: it is {reason}")
    return _prepared(sock, Owner.INHERITED)

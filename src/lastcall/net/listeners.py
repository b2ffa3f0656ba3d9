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

from lastcall.base.errors import StartupError
from lastcall.base.options import BindSpec

Address = tuple[str, int] | str


class Listener:
    """One listening socket.

    ``shared``: somebody else may hold it too (inherited or handed in), so its accept queue is not ours alone.
    ``inode`` is that of the unix socket's file that we made: (device, inode), or None; ``path`` is where it is,
    whatever becomes of the working directory.
    """

    def __init__(self, sock: socket.socket, shared: bool) -> None:
        self.sock = sock
        self.shared = shared
        self.inode: tuple[int, int] | None = None
        self.path = ""

    @property
    def address(self) -> Address:
        """``(host, port)`` or the path of a unix socket, as the kernel has it: port 0 has become the real one."""
        name = self.sock.getsockname()
        if isinstance(name, tuple):
            return name[0], name[1]
        return os.fsdecode(name) if isinstance(name, bytes) else str(name)

    @property
    def url(self) -> str:
        """What a person would open."""
        address = self.address
        if isinstance(address, str):
            return f"unix:{address or '(unnamed)'}"
        host, port = address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def listen(self, backlog: int) -> None:
        """Start listening; raises StartupError where the address is another's by now, or the kernel refuses."""
        try:
            if not self.shared and self.sock.family != socket.AF_UNIX:
                # Inherited by connections: those that outlive us must not keep a successor from binding.
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.listen(backlog)
        except OSError as exc:
            raise StartupError(f"cannot listen on {self.url}: {exc.strerror}") from exc
        # Until now nobody answered here, so that another server could take the file for one that was left behind.
        if self.inode is not None and (found := _inode(self.path)) != self.inode:
            what = "its file is gone" if found is None else "another server has taken its place"
            raise StartupError(f"cannot listen on {self.url}: {what}")

    def unlink(self) -> None:
        """Remove the unix socket's file if it is still the one that we made: nobody new can find us."""
        if self.inode is not None:
            unlink_socket(self.path, self.inode)
            self.inode = None

    def close(self) -> None:
        """Close our copy; remove the unix socket's file as ``unlink`` does."""
        self.unlink()
        self.sock.close()


def unlink_socket(path: str, inode: tuple[int, int]) -> None:
    """Remove a unix socket's file unless somebody has put another one there."""
    if _inode(path) == inode:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


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


def adopt(sock: socket.socket) -> Listener:
    """A socket that the caller of ``serve(sockets=[...])`` made, bound or already listening."""
    if sock.type != socket.SOCK_STREAM:
        raise StartupError(f"cannot serve on {sock}: it is not a stream socket")
    return _prepared(sock, shared=True)


def _prepared(sock: socket.socket, *, shared: bool) -> Listener:
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # Accepted connections inherit it: one call here instead of one per connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Listener(sock, shared)


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
    family, kind, proto, _, address = found[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and only_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        # It has done its work against TIME_WAIT. Left on, it would let everybody else who has it bind here too, as long
        # as nobody listens; listen() sets it again.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as exc:
        sock.close()
        raise StartupError(f"cannot listen on {spec}: {exc.strerror or exc}") from exc
    return _prepared(sock, shared=False)


def _bind_unix(spec: BindSpec, earlier: list[Listener]) -> Listener:
    # Not abspath(), which takes "..", behind a symbolic link, for something else than the kernel does. To bind() the
    # name goes as it came: an absolute one may be too long.
    path = spec.path if os.path.isabs(spec.path) else os.path.join(os.getcwd(), spec.path)
    found = _inode(path)
    if found is not None and any(listener.inode == found for listener in earlier):
        raise StartupError(f"cannot listen on {spec}: it is given twice")
    _clear_stale_socket(spec.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made = False
    try:
        sock.bind(spec.path)
        made = True
        os.chmod(path, spec.mode)
        status = os.stat(path)
    except OSError as exc:
        sock.close()
        if made:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise StartupError(f"cannot listen on {spec}: {exc.strerror or exc}") from exc
    listener = _prepared(sock, shared=False)
    listener.inode, listener.path = (status.st_dev, status.st_ino), path
    return listener


def _clear_stale_socket(path: str) -> None:
    """Remove the file of a server that is gone; refuse to take the place of one that answers."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
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
    if sock.type != socket.SOCK_STREAM:
        sock.close()
        raise StartupError(f"cannot listen on {spec}: it is not a stream socket")
    return _prepared(sock, shared=True)

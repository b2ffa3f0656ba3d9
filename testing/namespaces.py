"""Hosts that are network namespaces, on one bridge, which is in a namespace too: the machine's own network has no part.

A namespace is kept by a process that waits for the end of its input. So they vanish with the tests' process, however
that ends: the kernel removes a namespace, and all links in it, with the last process.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from testing.peer import Peer, eventually

CLONE_NEWNET = 0x40000000
NETWORK = "10.0.0"


class Network:
    """Hosts by name, in this order at 10.0.0.1, 10.0.0.2 and so on. The first one has the bridge.

    Needs root, and the programs unshare, nsenter (util-linux) and ip (iproute2).
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._stack = ExitStack()
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for number, name in enumerate(self._names, 1):
                self.hosts[name] = stack.enter_context(Host(f"{NETWORK}.{number}"))
            self._wire(*self.hosts.values())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _wire(self, first: Host, *others: Host) -> None:
        first.ip("link", "add", "bridge", "type", "bridge")
        first.ip("address", "add", f"{first.address}/24", "dev", "bridge")
        first.ip("link", "set", "bridge", "up")
        for number, host in enumerate(others):
            link = f"port{number}"
            first.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
            first.ip("link", "set", link, "master", "bridge", "up")
            host.ip("address", "add", f"{host.address}/24", "dev", "eth0")
            host.ip("link", "set", "eth0", "up")


class Host:
    """One network namespace, with nothing but its loopback device until somebody gives it more."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._keeper = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        ours = os.stat("/proc/self/ns/net").st_ino
        eventually(lambda: self._keeper_ended() or os.stat(self._namespace).st_ino != ours)
        assert not self._keeper_ended(), "unshare --net failed; it needs root, or CAP_SYS_ADMIN"
        self.ip("link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._keeper is not None
        self._keeper.communicate(timeout=10)  # closes its input

    def _keeper_ended(self) -> bool:
        return self._keeper is None or self._keeper.poll() is not None

    @property
    def pid(self) -> int:
        """A process in it."""
        assert self._keeper is not None
        return self._keeper.pid

    @property
    def _namespace(self) -> str:
        return f"/proc/{self.pid}/ns/net"

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words before a command that is to run there. The process number stays the command's own."""
        return ("nsenter", f"--net={self._namespace}")

    def ip(self, *words: str) -> None:
        """ip(8), there."""
        made = subprocess.run([*self.prefix, "ip", *words], capture_output=True, text=True, check=False, timeout=30)
        assert made.returncode == 0, f"ip {' '.join(words)}: {made.stderr}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is there, for the block. A socket stays where it was made."""
        with Path("/proc/thread-self/ns/net").open() as back, Path(self._namespace).open() as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(back.fileno())

    def connect(self, address: tuple[str, int]) -> Peer:
        """A connection from there."""
        with self.entered():
            return Peer(address)


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:  # os.setns: from Python 3.12 on
        raise OSError(ctypes.get_errno(), "setns")

"""Real nginx and HAProxy, with the configurations of ``deploy/`` at addresses that are free here.

``PROXIES`` has both. What a test adds or changes is named in ``changes``; all else is what people copy.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

from testing.peer import Peer, eventually
from testing.traffic import free_address

DEPLOY = Path(__file__).parents[1] / "deploy" / "proxy"
SECONDS = 30.0
Address = tuple[str, int]


class Proxy:
    """One proxy in front of ``backends``: two, unless ``changes`` has more of them.

    :param directory: for its files; it must not hold any.
    :param changes: texts of the shipped configuration, each there exactly once, and what stands in their place.
    :param address: where it listens; by default a free loopback address.
    :param prefix: words before the command, such as ``nsenter --net=…``.
    :param connect: what makes a connection to it.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    file: ClassVar[str]
    listen: ClassVar[str]

    def __init__(
        self,
        directory: Path,
        backends: Sequence[Address],
        changes: Mapping[str, str] | None = None,
        *,
        address: Address | None = None,
        prefix: Sequence[str] = (),
        connect: Callable[[Address], Peer] = Peer,
    ) -> None:
        found = shutil.which(self.name) or shutil.which(self.name, path="/usr/sbin")
        assert found is not None, f"{self.name} is missing: scripts/test-deps installs the package {self.package}"
        self.address = address or free_address()
        self._program = found
        self._connect = connect
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        text = (DEPLOY / self.file).read_text(encoding="utf-8")
        for old, new in (changes or {}).items():
            text = replace(text, old, new)
        text = replace(text, self.listen, self.listen.replace(":8080", "8080").replace("8080", join(self.address)))
        for number, backend in enumerate(backends, 1):
            text = replace(text, f"127.0.0.1:800{number}", join(backend))
        self.command = [*prefix, *self._write(text)]

    def _write(self, text: str) -> list[str]:
        """Write the configuration; the command that runs it in the foreground."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._log = (self._directory / f"{self.name}.log").open("wb")
        # A session of its own: a Ctrl-C of the terminal is for the tests.
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        try:
            eventually(self._answers, SECONDS)
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._log is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(SECONDS)
        self._log.close()
        if kind is not None:  # pytest shows it with the failure
            print(f"--- {self.name}\n{self.log[-10000:]}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            self._connect(self.address).close()
        except OSError:
            return False
        return True

    @property
    def log(self) -> str:
        """What it has said."""
        return (self._directory / f"{self.name}.log").read_text(errors="backslashreplace")

    def troubles(self) -> list[str]:
        """What it had to complain of about its upstream connections until now."""
        raise NotImplementedError


class Nginx(Proxy):
    """nginx, with two workers."""

    name = "nginx"
    package = "nginx-light"
    file = "nginx.conf"
    listen = "listen 8080;"

    def _write(self, text: str) -> list[str]:
        site, main = self._directory / "site.conf", self._directory / "nginx.conf"
        site.write_text(text)
        places = "".join(
            f"    {kind}_temp_path {self._directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;\n" if os.geteuid() == 0 else ""  # only root may enter the directory of a test of root's
        main.write_text(
            f"{user}daemon off;\nworker_processes 2;\npid {self._directory}/nginx.pid;\nerror_log stderr notice;\n"
            f"events {{ worker_connections 1024; }}\n"
            f"http {{\n    access_log off;\n{places}    include {site};\n}}\n"
        )
        return [self._program, "-p", str(self._directory), "-c", str(main), "-e", "stderr"]

    def troubles(self) -> list[str]:
        return [line for line in self.log.splitlines() if any(f"[{level}]" in line for level in ("warn", "error"))]


class HAProxy(Proxy):
    """HAProxy. It says which servers are up."""

    name = "haproxy"
    package = "haproxy"
    file = "haproxy.cfg"
    listen = "bind :8080"

    def _write(self, text: str) -> list[str]:
        # It takes two descriptors for each connection: more than some machines allow.
        text = replace(text, "maxconn 10000", "maxconn 1000")
        text = replace(
            text, "mode http\n", "mode http\n    log global\n    option httplog\n    option dontlog-normal\n"
        )
        main, ours = self._directory / "haproxy.cfg", self._directory / "ours.cfg"
        main.write_text(text)
        self._socket = self._directory / "stats.sock"
        ours.write_text(
            f"global\n    log stderr format raw local0\n    stats socket {self._socket} mode 600 level admin\n"
        )
        return [self._program, "-db", "-f", str(ours), "-f", str(main)]

    def _answers(self) -> bool:
        return super()._answers() and self._socket.exists() and bool(self.statistics())

    def statistics(self) -> list[dict[str, str]]:
        """A row of "show stat" for each server."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(SECONDS)
            sock.connect(str(self._socket))
            sock.sendall(b"show stat -1 4 -1\n")  # servers only
            text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        return list(csv.DictReader(text.removeprefix("# ").strip().splitlines()))

    def states(self) -> dict[str, str]:
        """UP, DOWN, or on the way between them, by server."""
        return {row["svname"]: row["status"] for row in self.statistics()}

    def wait_all_up(self) -> None:
        """Wait until every server has passed a check and gets requests."""
        eventually(lambda: all((r["status"], r["check_status"]) == ("UP", "L7OK") for r in self.statistics()), SECONDS)

    def troubles(self) -> list[str]:
        counters = ("econ", "eresp", "wretr", "wredis")
        found = [(row["svname"], name, int(row[name] or 0)) for row in self.statistics() for name in counters]
        counted = [f"{server}: {name} {number}" for server, name, number in found if number]
        return counted + [line for line in self.log.splitlines() if "HTTP/1.1" in line]


PROXIES: dict[str, type[Proxy]] = {kind.name: kind for kind in (Nginx, HAProxy)}


def replace(text: str, old: str, new: str) -> str:
    """Replace what has to be there exactly once."""
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in\n{text}"
    return text.replace(old, new)


def join(address: Address) -> str:
    """HOST:PORT."""
    return f"{address[0]}:{address[1]}"

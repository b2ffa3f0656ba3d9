"""Real servers for the stores: Redis, PostgreSQL and PgBouncer, from what Debian packages, one of each for a session.

Each has a directory of its own under the temporary one, and a free port on loopback; neither keeps anything. A test
asks for ``redis_server`` or ``postgres_server``; one that stops or freezes a server (``down``, ``frozen``) brings it
back. They run as the user of the tests, or as ``postgres`` if that is root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from testing.patience import Patience

START_SECONDS = 20.0


class Server:
    """One process. ``url`` is that of the store."""

    url: str

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lastcall-once-"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of its main process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it answers."""
        patience = Patience(START_SECONDS)
        while True:
            self._spawn()
            while self._process is not None and self._process.poll() is None:
                if self._answers():
                    return
                if patience.over:
                    raise TimeoutError(f"no answer: {self._log.read_text(errors='replace')}")
                time.sleep(0.02)
            # After a kill, PostgreSQL's children may take a moment to let go of its memory.
            if patience.over:
                raise RuntimeError(self._log.read_text(errors="replace"))
            time.sleep(0.1)

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory, user=_user()
            )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it; SIGINT lets both servers close their connections, SIGKILL does not."""
        if self._process is not None:
            # PostgreSQL's children outlive a parent that was killed, for as long as it takes them to notice.
            orphans = self._children() if how is signal.SIGKILL else []
            self._process.send_signal(how)
            patience = Patience(START_SECONDS)
            while self._process.poll() is None:
                if patience.over:
                    raise TimeoutError(f"it does not end: {self._log.read_text(errors='replace')}")
                time.sleep(0.01)
            self._process = None
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)

    def _children(self) -> list[int]:
        """The ids of the processes that its main one has started."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def down(self, how: signal.Signals = signal.SIGINT) -> Iterator[None]:
        """Stopped inside, running again after."""
        self.stop(how)
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Connected, but without an answer."""
        assert self._process is not None
        main = self._process.pid
        os.kill(main, signal.SIGSTOP)  # first: then it makes no more of them
        pids = [main, *self._children()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


class RedisServer(Server):
    """``redis-server``; ``tls`` makes it speak only TLS, with a certificate of its own."""

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__()
        _give(self.directory)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket = self.directory / "socket"  # another way in
        self._tls: list[str] = []
        if tls:
            certificate, key = self.directory / "cert.pem", self.directory / "key.pem"
            command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
            names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
            files = ["-keyout", str(key), "-out", str(certificate)]
            subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
            _give(certificate)
            _give(key)
            self.url = f"rediss://localhost:{self.port}/0?ssl_ca_certs={certificate}"
            self._tls = ["--tls-port", str(self.port), "--tls-auth-clients", "no"]
            self._tls += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]

    def _command(self) -> list[str]:
        port = "0" if self._tls else str(self.port)
        fixed = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        fixed += ["--unixsocket", str(self.socket), "--enable-debug-command", "local"]
        return ["redis-server", "--port", port, *fixed, *self._tls]

    def client(self) -> redis.Redis:
        """A client that the caller closes."""
        return redis.Redis.from_url(self.url)

    def _answers(self) -> bool:
        with contextlib.closing(self.client()) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


class PostgresServer(Server):
    """A cluster that ``initdb`` makes, without ``fsync``; trusts everybody on loopback."""

    def __init__(self) -> None:
        super().__init__()
        _give(self.directory)
        self.url = f"postgresql://once@127.0.0.1:{self.port}/postgres"
        self._data = self.directory / "data"
        made = subprocess.run(
            [
                _postgres("initdb"),
                "-D",
                str(self._data),
                "-U",
                "once",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
            user=_user(),
        )
        if made.returncode:
            raise RuntimeError(made.stdout + made.stderr)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "fsync": "off",
            "autovacuum": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [_postgres("postgres"), "-D", str(self._data), *options]

    def client(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A connection, in autocommit, that the caller closes."""
        return psycopg.connect(self.url.replace("/postgres", f"/{database}"), autocommit=True)

    def _answers(self) -> bool:
        try:
            self.client().close()
        except psycopg.OperationalError:
            return False
        return True


class PgBouncer(Server):
    """A pooler before ``postgres``, for all of its databases; ``mode`` is PgBouncer's ``pool_mode``.

    ``size`` is the number of its connections to each database.
    """

    def __init__(self, postgres: PostgresServer, mode: str, *, size: int) -> None:
        super().__init__()
        self.url = f"postgresql://once@127.0.0.1:{self.port}/postgres"
        self._settings = self.directory / "pgbouncer.ini"
        self._settings.write_text(
            f"""
[databases]
* = host=127.0.0.1 port={postgres.port} user=once
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
server_round_robin = 1
"""
        )
        _give(self.directory)
        _give(self._settings)

    def _command(self) -> list[str]:
        return [
            shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "pgbouncer",
            "pgbouncer.ini",
        ]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, at once; on SIGINT it would wait for its clients."""
        super().stop(how)

    def client(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A connection, in autocommit and without prepared statements, that the caller closes."""
        return psycopg.connect(self.url.replace("/postgres", f"/{database}"), autocommit=True, prepare_threshold=None)

    def _answers(self) -> bool:
        try:
            self.client().close()
        except psycopg.OperationalError:
            return False
        return True


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _user() -> str | None:
    """PostgreSQL refuses to run as root; its Debian package makes a user for it."""
    return "postgres" if os.geteuid() == 0 else None


def _give(path: Path) -> None:
    user = _user()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _postgres(program: str) -> str:
    """Debian keeps PostgreSQL's programs out of the way, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[4]))
    path = str(found[-1]) if found else shutil.which(program)
    if path is None:
        raise RuntimeError(f"{program} is missing: scripts/test-deps installs PostgreSQL")
    return path

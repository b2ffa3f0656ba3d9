"""Behind nginx and HAProxy as ``deploy/`` configures them, a stop and a reload lose no request.

A request is lost where a client of the proxy does not get its answer with 200. POSTs are counted by the application
too: none may run twice, nor without its client hearing of it.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from testing.peer import Peer, eventually
from testing.proxies import PROXIES, HAProxy, Proxy
from testing.traffic import Backend, Traffic, free_address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
READY = ("--health-path", "/-")
BOTH = pytest.mark.parametrize("name", sorted(PROXIES))


# What the shipped configurations wait for, shorter: the order of the times is theirs. nginx leaves out for
# ``fail_timeout`` (10 s if nothing is said) a server that was not there, HAProxy for as long as its checks take.
DELAY = "2"  # s of --drain-delay
QUICKER = {
    "nginx": {
        "server 127.0.0.1:8001;": "server 127.0.0.1:8001 fail_timeout=1s;",
        "server 127.0.0.1:8002;": "server 127.0.0.1:8002 fail_timeout=1s;",
        "keepalive_timeout 4s;": "keepalive_timeout 1s;",
    },
    "haproxy": {
        "check inter 2s fall 2 rise 1": "check inter 600ms fall 2 rise 1",
        "pool-purge-delay 5s": "pool-purge-delay 1s",
    },
}


class Pair:
    """Two backends, one a single process and one with two workers, behind a proxy."""

    def __init__(self, stack: ExitStack, directory: Path, name: str, *options: str, workers: tuple[str, str]) -> None:
        self.backends = []
        for backend, count in zip("ab", workers, strict=True):
            extra = ("--workers", count) if count != "1" else ()
            self.backends.append(stack.enter_context(Backend(backend, directory, *READY, *options, *extra)))
        place = directory / name
        place.mkdir()
        addresses = [one.address for one in self.backends]
        self.proxy: Proxy = stack.enter_context(PROXIES[name](place, addresses, QUICKER[name]))
        self.wait_all_up()

    def wait_all_up(self) -> None:
        """Wait until the proxy's checks have passed, if it has any."""
        if isinstance(self.proxy, HAProxy):
            self.proxy.wait_all_up()

    def stop_and_start(self, backend: Backend, traffic: Traffic) -> None:
        """One after the other, as a rolling deploy does: the next only when the proxy uses this one again."""
        backend.deploy()
        backend.stop()
        traffic.more(200)
        backend.start()
        traffic.served_by(f"{backend.name} {backend.generation}")
        self.wait_all_up()

    def check(self, traffic: Traffic) -> None:
        """Nothing was lost, and no POST ran twice, or unheard."""
        print(traffic.told())
        assert traffic.failures == [], traffic.told()
        ran = Counter(token for backend in self.backends for token in backend.posts)
        assert ran == Counter(traffic.answered.get("POST", []))


@BOTH
def test_a_stop_and_start_loses_no_idempotent_request(tmp_path: Path, name: str) -> None:
    with ExitStack() as stack:
        pair = Pair(stack, tmp_path, name, workers=("1", "2"))
        with Traffic(pair.proxy.address, ["GET"]) as traffic:
            traffic.more(500)
            for backend in pair.backends:
                pair.stop_and_start(backend, traffic)
        pair.check(traffic)


@BOTH
def test_with_a_drain_delay_no_post_either(tmp_path: Path, name: str) -> None:
    with ExitStack() as stack:
        pair = Pair(stack, tmp_path, name, "--drain-delay", DELAY, workers=("1", "2"))
        with Traffic(pair.proxy.address, ["GET", "POST"]) as traffic:
            traffic.more(500)
            for backend in pair.backends:
                pair.stop_and_start(backend, traffic)
        pair.check(traffic)


@BOTH
def test_a_rolling_reload_loses_no_post_without_delay_and_checks(tmp_path: Path, name: str) -> None:
    """The proxy has nothing to repeat: it sees neither a refused nor a closed connection."""
    with ExitStack() as stack:
        pair = Pair(stack, tmp_path, name, workers=("2", "2"))
        with Traffic(pair.proxy.address, ["GET", "POST"]) as traffic:
            for _ in range(3):
                traffic.more(300)
                for backend in pair.backends:
                    backend.reload()
                    traffic.served_by(f"{backend.name} {backend.generation}")
        assert pair.proxy.troubles() == []
        pair.check(traffic)


@BOTH
def test_an_upgrade_of_the_server_loses_no_post(tmp_path: Path, name: str) -> None:
    with ExitStack() as stack:
        pair = Pair(stack, tmp_path, name, workers=("2", "2"))
        with Traffic(pair.proxy.address, ["GET", "POST"]) as traffic:
            for backend in pair.backends:
                traffic.more(300)
                backend.upgrade()
                traffic.served_by(f"{backend.name} {backend.generation}")
        pair.check(traffic)


# -- What the tests above stand on ------------------------------------------------------------------------------------


class Closing:
    """A server that closes each connection when it has read a request; checks of its health are answered."""

    def __init__(self) -> None:
        self.address = free_address()
        self.methods: Counter[str] = Counter()
        self._listener = socket.create_server(self.address)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(10)
                request = sock.recv(65536)
                if b"/-/ready" in request:
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                elif request:
                    self.methods[request.split(b" ")[0].decode()] += 1


@BOTH
@pytest.mark.parametrize(("method", "again"), [("GET", True), ("DELETE", True), ("POST", False), ("PATCH", False)])
def test_only_what_may_run_twice_is_sent_twice(tmp_path: Path, name: str, method: str, again: bool) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(Closing()) for _ in range(2)]
        proxy = stack.enter_context(PROXIES[name](tmp_path, [one.address for one in servers]))
        with Peer(proxy.address) as peer:
            peer.sock.settimeout(30)
            peer.request("/", method=method, body=b"" if again else b"x")
            assert peer.answer().status == 502
        sent = sum((one.methods for one in servers), Counter[str]())
        assert set(sent) == {method}
        assert (sent[method] > 1) == again
        assert all(one.methods[method] for one in servers) == again


def test_a_request_that_is_lost_is_counted(tmp_path: Path) -> None:
    with Backend("a", tmp_path) as backend, Traffic(backend.address) as traffic:
        traffic.more(100)
        assert traffic.failures == []
        backend.process.signal(signal.SIGKILL)
        # First those that it had, then those that are refused.
        eventually(lambda: {failure.reused for failure in list(traffic.failures)} == {True, False})

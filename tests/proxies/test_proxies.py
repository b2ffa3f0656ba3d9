"""Behind nginx and HAProxy as ``deploy/`` configures them, a stop and a reload lose no request.

A request is lost where a client of the proxy does not get its answer with 200. POSTs are counted by the application
too: none may run twice, nor without its client hearing of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.peer import eventually
from testing.proxies import PROXIES, HAProxy, Proxy
from testing.traffic import Backend, Traffic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
READY = ("--health-path", "/-")
BOTH = pytest.mark.parametrize("name", sorted(PROXIES))


class Pair:
    """Two backends, one a single process and one with two workers, behind a proxy."""

    def __init__(self, stack: ExitStack, directory: Path, name: str, *options: str, workers: tuple[str, str]) -> None:
        self.backends = []
        for backend, count in zip("ab", workers, strict=True):
            extra = ("--workers", count) if count != "1" else ()
            self.backends.append(stack.enter_context(Backend(backend, directory, *READY, *options, *extra)))
        place = directory / name
        place.mkdir()
        self.proxy: Proxy = stack.enter_context(PROXIES[name](place, [one.address for one in self.backends]))
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
        pair = Pair(stack, tmp_path, name, "--drain-delay", "5", workers=("1", "2"))
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

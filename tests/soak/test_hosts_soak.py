"""A rolling deploy over three hosts behind HAProxy, each in a network of its own, loses no request.

The hosts are network namespaces, so what is between them is a real link: an address that nobody has at the moment, a
SYN that is dropped, a connection that is refused. HAProxy has the configuration of ``deploy/`` and a third server.
``LASTCALL_SOAK_HOSTS_SECONDS`` is how long deploys are begun (80); each takes some 9 s.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.namespaces import Network
from testing.proxies import HAProxy
from testing.traffic import Backend, Traffic

SECONDS = float(os.environ.get("LASTCALL_SOAK_HOSTS_SECONDS", "80"))
OPTIONS = ("--workers", "2", "--drain-delay", "5", "--health-path", "/-")
NAMES = ("app1", "app2", "app3")
SECOND = "    server app2 127.0.0.1:8002\n"
THIRD = {SECOND: f"{SECOND}    server app3 127.0.0.1:8003\n"}


def roll(seconds: float, directory: Path) -> str:
    """Deploy host by host, again and again, and each at least once; what it came to, in some lines."""
    if os.geteuid() != 0:
        pytest.fail("this test makes network namespaces, and only root can: run it as root, or leave it out by -k")
    missing = [program for program in ("ip", "nsenter", "unshare", "haproxy") if shutil.which(program) is None]
    if missing:
        pytest.fail(f"not found: {', '.join(missing)}; scripts/test-deps installs them")
    with ExitStack() as stack:
        hosts = stack.enter_context(Network("proxy", "clients", *NAMES)).hosts
        backends = [
            stack.enter_context(
                Backend(name, directory, *OPTIONS, address=(hosts[name].address, 8000), prefix=hosts[name].prefix)
            )
            for name in NAMES
        ]
        place = directory / "haproxy"
        place.mkdir()
        proxy = HAProxy(
            place,
            [one.address for one in backends],
            THIRD,
            address=(hosts["proxy"].address, 8080),
            prefix=hosts["proxy"].prefix,
            connect=hosts["clients"].connect,
        )
        stack.enter_context(proxy)
        proxy.wait_all_up()
        deploys = 0
        with Traffic(proxy.address, connect=hosts["clients"].connect) as traffic:
            traffic.more(200)
            until = time.monotonic() + seconds
            while deploys < len(backends) or time.monotonic() < until:
                backend = backends[deploys % len(backends)]
                backend.deploy()
                backend.stop()
                backend.start()
                proxy.wait_all_up()
                traffic.served_by(f"{backend.name} {backend.generation}")
                deploys += 1
            for backend in backends:
                backend.reload()
                traffic.served_by(f"{backend.name} {backend.generation}")
        told = f"{deploys} hosts deployed, {len(backends)} reloaded; {traffic.told()}"
        assert traffic.failures == [], told
        ran = Counter(token for backend in backends for token in backend.posts)
        assert ran == Counter(traffic.answered["POST"]), "a POST ran twice, or nobody was told that it ran"
        assert proxy.troubles() == [], told
        return told


@pytest.mark.soak
@pytest.mark.timeout(420)
def test_a_rolling_deploy_over_three_hosts_loses_no_request(tmp_path: Path) -> None:
    print(f"\n{roll(SECONDS, tmp_path)}")

"""Deploys through the canary: four kinds of broken ones are rolled back, a good one is promoted; under clients."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testing.peer import Peer
from testing.service import Service

pytestmark = pytest.mark.slow

APP = '''\
"""The application of a deploy: {name}."""

import asyncio
import random

OPENAPI, FAILING, SECONDS = {openapi}, {failing}, {seconds}
{extra}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({{"type": kind + ".complete"}})
            if kind == "lifespan.shutdown":
                return
    status = OPENAPI if scope["path"] == "/openapi.json" else 200
    if scope["path"] == "/":
        await asyncio.sleep(SECONDS)
        status = 500 if random.random() < FAILING else 200
    body = b"{name}"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({{"type": "http.response.start", "status": status, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
'''

HOLD = 6.0
OPTIONS = ("--workers", "2", "--canary", "--canary-hold", f"{HOLD:g}", "--canary-min-requests", "40")


def application(name: str, *, openapi: int = 200, failing: float = 0.0, seconds: float = 0.02, extra: str = "") -> str:
    return APP.format(name=name, openapi=openapi, failing=failing, seconds=seconds, extra=extra)


class Clients:
    """Eight clients: half keep their connection, half open a new one for each request. What each answer was is kept."""

    def __init__(self, address: str) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        self.failures: list[str] = []
        self.reconnected = 0
        self._address = address
        self._over = threading.Event()
        self._lock = threading.Lock()
        kinds = [self._keep, self._renew] * 4
        self._threads = [threading.Thread(target=kind, daemon=True) for kind in kinds]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)

    def wait_for(self, number: int) -> None:
        """Until so many more requests were answered."""
        wanted = self.answers.total() + number
        until = time.monotonic() + 20
        while self.answers.total() < wanted:
            assert time.monotonic() < until, self.failures
            time.sleep(0.05)

    def _ask(self, peer: Peer, *headers: str) -> bool:
        try:
            answer = peer.get("/", *headers)
        except OSError as exc:
            with self._lock:
                self.failures.append(repr(exc))
            return False
        with self._lock:
            self.answers[answer.status, answer.body.decode()] += 1
        return answer.headers.get("connection") != "close"

    def _keep(self) -> None:
        while not self._over.is_set():
            with Peer(self._address) as peer:
                while self._ask(peer) and not self._over.is_set():
                    time.sleep(0.01)
            self.reconnected += not self._over.is_set()

    def _renew(self) -> None:
        while not self._over.is_set():
            with Peer(self._address) as peer:
                self._ask(peer, "Connection: close")
            time.sleep(0.01)


class Deploys:
    """A service under clients, and what ``lastcall ctl`` says of deploys."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.clients = Clients(service.address)

    def ctl(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The exit code of one command, and the last document that it wrote; an order writes one per line."""
        command = [sys.executable, "-m", "lastcall", "ctl", *arguments, "--json", "--socket", str(self.service.control)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        assert done.stdout, done.stderr
        if "\n{" in done.stdout:
            return done.returncode, json.loads(done.stdout.splitlines()[-1])
        return done.returncode, json.loads(done.stdout)

    def deploy(self, text: str) -> tuple[int, dict[str, Any]]:
        """Put new code there, and reload."""
        self.service.deploy(text=text)
        return self.ctl("reload")


@contextmanager
def deploys(directory: Path, *options: str) -> Iterator[Deploys]:
    service = Service(directory, *OPTIONS, *options)
    service.deploy(text=application("old"))
    with service:
        found = Deploys(service)
        found.clients.start()
        try:
            found.clients.wait_for(50)
            yield found
        finally:
            found.clients.stop()


@pytest.mark.timeout(120)
def test_a_good_deploy_is_promoted_and_no_request_is_lost(tmp_path: Path) -> None:
    with deploys(tmp_path) as fleet:
        code, answer = fleet.deploy(application("new"))
        assert code == 0, answer
        before = fleet.clients.answers[200, "old"]
        fleet.clients.wait_for(100)
        assert fleet.clients.answers[200, "old"] == before, "everybody runs the new code"
    assert fleet.clients.failures == []
    assert fleet.clients.reconnected == 0
    assert {status for status, _ in fleet.clients.answers} == {200}
    report = answer["report"]
    assert report["verdict"] == "promote"
    assert report["canary"]["requests"] >= 40


BROKEN = {
    "import error": (application("new", extra="import no_such_module_anywhere"), "no_such_module_anywhere"),
    "smoke": (application("new", openapi=500), r"GET /openapi\.json: expected 200, got 500"),
    "5xx": (application("new", failing=0.3), "fails more often"),
    "slow": (application("new", seconds=0.06), "slower"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_deploy_is_rolled_back_and_hurts_nobody_beyond_its_share(tmp_path: Path, kind: str) -> None:
    text, why = BROKEN[kind]
    with deploys(tmp_path) as fleet:
        code, answer = fleet.deploy(text)
        assert code == 1, answer
        assert re.search(why, json.dumps(answer)), answer
        fleet.clients.wait_for(20)  # those of its last requests
        new = sum(number for (_, name), number in fleet.clients.answers.items() if name == "new")
        fleet.clients.wait_for(100)
        later = sum(number for (_, name), number in fleet.clients.answers.items() if name == "new")
        assert later == new, "everybody runs the old code"
    clients = fleet.clients
    assert clients.failures == []
    assert clients.reconnected == 0
    assert not any(status != 200 and name == "old" for status, name in clients.answers)
    assert (new > 0) == (kind in ("5xx", "slow")), "only what is clean gets clients"
    if kind == "5xx":
        assert clients.answers[500, "new"] < clients.answers.total() * 0.3 / 2


@pytest.mark.timeout(120)
def test_a_person_is_waited_for_and_promotes(tmp_path: Path) -> None:
    with deploys(tmp_path, "--canary-approve") as fleet:
        fleet.service.deploy(text=application("new"))
        outcome: list[tuple[int, dict[str, Any]]] = []
        waiting = threading.Thread(target=lambda: outcome.append(fleet.ctl("reload")), daemon=True)
        waiting.start()
        until = time.monotonic() + 60
        while '"approval"' not in json.dumps(fleet.ctl("status")[1]):
            assert time.monotonic() < until
            assert waiting.is_alive(), outcome
            time.sleep(0.2)
        assert fleet.ctl("promote")[0] == 0
        waiting.join(60)
        assert outcome[0][0] == 0, outcome
        assert outcome[0][1]["report"]["reason"] == "approved"
        assert "old generation:" in outcome[0][1]["text"]
        assert fleet.service.process.stderr.count("waiting for `lastcall ctl promote`") == 1
    assert fleet.clients.failures == []

"""Requests that land around SIGTERM: real servers, each with several clients, and what became of every one of them.

One *round* is one server process, one SIGTERM, and `SHOTS` clients whose requests are written up to `WINDOW` seconds
before or after it. A *volley* is a few rounds that begin shortly after each other: a client whose SYN was dropped waits
a second for the next try, and that second costs a volley no more than a round.
"""

from __future__ import annotations

import json
import random
import select
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from testing.peer import Peer, request
from testing.process import ServerProcess

ROOT = Path(__file__).parents[2]
WINDOW = 0.005
SHOTS = 6
ROUNDS_PER_VOLLEY = 5
LEAD = 0.05  # between the last client's start and the first shot
STAGGER = 0.03  # between the SIGTERMs of a volley
UNIX_EVERY = 5  # each fifth round is over a unix socket
WAYS = ("now", "soon", "pieces", "upload")


class Kind(Enum):
    """What connection a request comes on."""

    FRESH = "fresh"  # connected just before
    WAITING = "waiting"  # connected and accepted long before, no byte sent yet
    KEPT = "kept alive"  # has had an answer before


class Outcome(Enum):
    """What a client can see. Only `LOST` is a fault."""

    ANSWERED = "answered"
    REFUSED = "refused"  # before it was accepted: it knows that it can go elsewhere
    CLOSED_BEFORE = "closed before"  # a clean FIN before it has sent anything
    LOST = "lost"


@dataclass
class Shot:
    """One client's request.

    ``at`` is when it is to be written, in seconds from the SIGTERM; ``connect`` how long before that it connects, if
    `Kind.FRESH`; ``split`` how long after it the second half follows (0: one half). ``acted`` is when the client
    really wrote it, or tried to connect and was refused.
    """

    kind: Kind
    way: str
    token: str
    at: float
    connect: float
    split: float
    acted: float = 0.0
    outcome: Outcome = Outcome.LOST
    detail: str = ""

    def __str__(self) -> str:
        return (
            f"{self.kind.value}, /{self.way}, {self.acted * 1000:+.2f} ms from SIGTERM"
            f"{f', split by {self.split * 1000:.2f} ms' if self.split else ''}: {self.outcome.value} {self.detail}"
        )


@dataclass
class Round:
    """One server's stop, and what its clients saw. ``faults`` is empty if nothing was lost."""

    number: int
    unix: bool
    shots: list[Shot]
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether a client acted inside the window; a busy machine may have been late."""
        return any(abs(shot.acted) <= WINDOW for shot in self.shots)


def aim(rng: random.Random, number: int) -> Round:
    """Draw the shots of a round: the kinds take turns."""
    kinds = list(Kind)
    shots = [
        Shot(
            kind=kinds[shot % len(kinds)],
            way=rng.choice(WAYS),
            token=f"{number}-{shot}",
            at=rng.uniform(-WINDOW, WINDOW),
            connect=rng.choice((0.0, rng.uniform(0, WINDOW))),
            split=rng.choice((0.0, 0.0, rng.uniform(0, WINDOW))),
        )
        for shot in range(SHOTS)
    ]
    return Round(number, number % UNIX_EVERY == UNIX_EVERY - 1, shots)


class Range:
    """One round under way: `ready()`, then `fire()` with the time of the SIGTERM, then `judge()`."""

    def __init__(self, given: Round, directory: Path, options: tuple[str, ...], stack: ExitStack) -> None:
        self.round = given
        self._stack = stack
        self._path = directory / f"report-{given.number}.json"
        listening = ("--uds", str(directory / f"{given.number}.sock")) if given.unix else ("--port", "0")
        report = ("--drain-report", str(self._path))
        self._server = stack.enter_context(
            ServerProcess((*listening, *report, *options), "tests.soak.stop_app:app", cwd=ROOT)
        )
        self._peers: dict[str, Peer] = {}
        self._threads: list[threading.Thread] = []
        self._signalled = 0.0
        self._code: int | None = None

    def ready(self) -> None:
        """Wait for the server; connect those who come early."""
        self._address = self._server.wait_ready()[0]
        for shot in self.round.shots:
            if shot.kind is not Kind.FRESH:
                self._peers[shot.token] = self._stack.enter_context(Peer(self._address))
            if shot.kind is Kind.KEPT:
                assert self._peers[shot.token].get(f"/now?{shot.token}").body.decode() == shot.token

    def fire(self, at: float) -> None:
        """SIGTERM at ``at`` on the monotonic clock, with the shots around it; returns before they have landed."""
        self._threads = [threading.Thread(target=self._shoot, args=(shot, at)) for shot in self.round.shots]
        self._threads.append(threading.Thread(target=self._signal, args=(at,)))
        for thread in self._threads:
            thread.start()

    def judge(self) -> Round:
        """Wait for all, and say what went wrong."""
        for thread in self._threads:
            thread.join()
        given = self.round
        for shot in given.shots:
            shot.acted -= self._signalled
        faults = [str(shot) for shot in given.shots if shot.outcome is Outcome.LOST]
        answers = sum(shot.outcome is Outcome.ANSWERED for shot in given.shots) + sum(
            shot.kind is Kind.KEPT for shot in given.shots
        )
        ended = json.loads(self._server.stdout.splitlines()[-1])["ended"]
        if ended != answers:
            faults.append(f"{ended} requests were handled, and {answers} answers came")
        report = json.loads(self._path.read_text())
        entries = sum(report["in_flight"].values()) + report["arrived"]
        if self._code or report["finished"] != entries or report["cut"]:
            faults.append(f"exit code {self._code}, report {report}")
        if "Traceback" in self._server.stderr or "ERROR" in self._server.stderr:
            faults.append(self._server.stderr)
        given.faults = [f"round {given.number}{' (unix)' if given.unix else ''}: {fault}" for fault in faults]
        return given

    def _signal(self, at: float) -> None:
        pause(at)
        self._signalled = time.monotonic()
        self._server.signal(signal.SIGTERM)
        self._code = self._server.wait()
        self.round.seconds = time.monotonic() - self._signalled

    def _shoot(self, shot: Shot, at: float) -> None:
        try:
            shot.outcome, shot.detail = self._request(shot, at + shot.at)
        except Exception as error:
            shot.outcome, shot.detail = Outcome.LOST, repr(error)

    def _request(self, shot: Shot, at: float) -> tuple[Outcome, str]:
        with ExitStack() as stack:
            if shot.kind is Kind.FRESH:
                pause(at - shot.connect)
                shot.acted = time.monotonic()
                try:
                    peer = stack.enter_context(Peer(self._address))
                except (ConnectionRefusedError, FileNotFoundError) as error:
                    return Outcome.REFUSED, type(error).__name__
            else:
                peer = stack.enter_context(self._peers[shot.token])
            pause(at)
            if shot.kind is Kind.KEPT and closed(peer.sock):
                shot.acted = time.monotonic()
                return Outcome.CLOSED_BEFORE, ""
            target = f"/{shot.way}?{shot.token}"
            data = request(target, method="POST", body=b"x" * 1000) if shot.way == "upload" else request(target)
            half = len(data) // 2 if shot.split else len(data)
            shot.acted = time.monotonic()
            peer.send(data[:half])
            if shot.split:
                pause(at + shot.split)
                peer.send(data[half:])
            answer = peer.answer()
            if (answer.status, answer.body.decode()) != (200, shot.token):
                return Outcome.LOST, f"wrong answer {answer}"
            if answer.headers.get("connection") == "close" and (end := peer.ended()) != "FIN":
                return Outcome.LOST, f"answered, then {end}"
        return Outcome.ANSWERED, ""


def pause(until: float) -> None:
    """Sleep until a time on the monotonic clock."""
    left = until - time.monotonic()
    if left > 0:
        time.sleep(left)


def closed(sock: socket.socket) -> bool:
    """Whether the peer's FIN has come; raises for a RST."""
    readable, _, _ = select.select([sock], [], [], 0)
    return bool(readable) and not sock.recv(1, socket.MSG_PEEK)


def fire_rounds(count: int, rng: random.Random, directory: Path, options: tuple[str, ...]) -> list[Round]:
    """Fire volleys until ``count`` rounds were valid, or twice as many were fired."""
    rounds: list[Round] = []
    while sum(one.valid for one in rounds) < count and len(rounds) < 2 * count:
        with ExitStack() as stack:
            first = len(rounds)
            ranges = [Range(aim(rng, first + number), directory, options, stack) for number in range(ROUNDS_PER_VOLLEY)]
            for one in ranges:
                one.ready()
            begin = time.monotonic() + LEAD
            for number, one in enumerate(ranges):
                one.fire(begin + number * STAGGER)
            rounds += [one.judge() for one in ranges]
    return rounds


def table(rounds: list[Round]) -> str:
    """The figures of all rounds, in Markdown."""
    valid = [one for one in rounds if one.valid]
    lines = [
        f"{len(valid)} rounds with a request within ±{WINDOW * 1000:g} ms of SIGTERM (of {len(rounds)}; "
        f"{sum(one.unix for one in valid)} over a unix socket)",
        "",
        "| connection | " + " | ".join(outcome.value for outcome in Outcome) + " | within the window |",
        "|---|" + "---|" * (len(Outcome) + 1),
    ]
    for unix in (False, True):
        for kind in Kind:
            shots = [shot for one in rounds if one.unix is unix for shot in one.shots if shot.kind is kind]
            counts = Counter(shot.outcome for shot in shots)
            cells = [f"{kind.value}, {'unix' if unix else 'TCP'}", *(str(counts[outcome]) for outcome in Outcome)]
            cells.append(f"{sum(abs(shot.acted) <= WINDOW for shot in shots)} of {len(shots)}")
            lines.append(f"| {' | '.join(cells)} |")
    seconds = sorted(one.seconds for one in rounds)
    lines += ["", f"From SIGTERM to exit: median {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s"]
    return "\n".join(lines)

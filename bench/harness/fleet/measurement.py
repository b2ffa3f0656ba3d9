"""The measurement `fleet`: its parts in interleaved rounds, and one text of their tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .. import report
from ..catalogue import Server
from ..errors import BenchError
from ..session import Session, measured
from . import crash, parent, reload, roll, scaling, tables
from .parent import Idle

T = TypeVar("T")

PARTS = ("scaling", "parent", "roll", "crash", "reload")
SERVERS = ["lastcall", "uvicorn", "granian", "h2corn", "hypercorn", "gunicorn", "gunicorn-uvicorn"]


@dataclass(frozen=True)
class Size:
    """How much is measured: interleaved rounds, seconds of load, idle seconds, saves in each round."""

    rounds: int
    seconds: int
    idle: float
    saves: int


QUICK = Size(rounds=1, seconds=1, idle=2.0, saves=1)
IDLE_SECONDS, SAVES = 20.0, 3


@dataclass
class Found:
    """What was found, by server and round."""

    scaling: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)
    parent: dict[str, Idle] = field(default_factory=dict)
    roll: dict[str, dict[int, roll.Rolled]] = field(default_factory=dict)
    crash: dict[int, crash.Crash] = field(default_factory=dict)
    reload: dict[tuple[str, str], dict[int, list[reload.Reloaded]]] = field(default_factory=dict)


class Fleet:
    """One run of the measurement."""

    def __init__(self, session: Session, size: Size) -> None:
        self._session = session
        self._size = size
        self._failed: set[tuple[str, ...]] = set()
        self.found = Found()

    def round(self, number: int, parts: Collection[str]) -> None:
        """Every part but the parents' once for every server that has it; each round begins with another server."""
        servers = self._session.servers
        turn = number % len(servers)
        for server in servers[turn:] + servers[:turn]:
            if "scaling" in parts and server.fleet:
                self._scaling(number, server)
            if "roll" in parts and server.fleet:
                self._roll(number, server)
            if "crash" in parts and server.role == "ours":
                self._crash(number, server)
        if "reload" in parts:  # one server right after the other
            for app in reload.APPS:
                for server in [one for one in servers if one.reload]:
                    self._reload(number, server, app)

    def parents(self) -> None:
        """All parents, idle."""
        servers = [server for server in self._session.servers if server.fleet]
        self.found.parent = parent.measure(self._session, servers, seconds=self._size.idle)

    def _try(self, part: str, server: Server, measure: Callable[[], T], *more: str) -> T | None:
        """What was measured; None when it fails, or has failed in an earlier round."""
        key = (part, server.name, *more)
        if key in self._failed:
            return None
        try:
            return measure()
        except BenchError as exc:
            self._failed.add(key)
            self._session.problem(f"{server.name}, {part}: {exc}")
            return None

    def _say(self, number: int, part: str, server: Server, text: str) -> None:
        self._session.progress(f"round {number + 1}/{self._size.rounds}  {part:8}{server.name:18} {text}")

    def _scaling(self, number: int, server: Server) -> None:
        rates = []
        for workers in (1, 2):
            rate = self._try(
                "scaling",
                server,
                lambda workers=workers: scaling.per_second(  # type: ignore[misc]
                    self._session, server, workers, seconds=self._size.seconds
                ),
            )
            if rate is None:
                return
            rates.append(rate)
        one, two = rates
        self.found.scaling.setdefault(server.name, {})[number] = (one, two)
        self._say(number, "scaling", server, f"{one:7.0f}/s  {two:7.0f}/s  {two / one:.2f}")

    def _roll(self, number: int, server: Server) -> None:
        one = self._try("roll", server, lambda: roll.measure(self._session, server))
        if one is not None:
            self.found.roll.setdefault(server.name, {})[number] = one
            self._say(
                number,
                "roll",
                server,
                f"{one.seconds:6.2f} s, {one.beyond:.2f} beyond the application's own  lost {one.lost}  "
                f"reconnects {one.reconnects}  answers {one.answers}, the slowest {one.slowest:.2f} s",
            )

    def _crash(self, number: int, server: Server) -> None:
        one = self._try("crash", server, lambda: crash.measure(self._session, server))
        if one is not None:
            self.found.crash[number] = one
            self._say(
                number,
                "crash",
                server,
                f"back after {one.back * 1000:.0f} ms (spawned after {one.until_spawn * 1000:.0f}), a boot takes "
                f"{one.boot * 1000:.0f} ms; {one.lost} of {one.asked} lost, slowest {one.slowest * 1000:.0f} ms",
            )

    def _reload(self, number: int, server: Server, app: str) -> None:
        each = self._try(
            "reload", server, lambda: reload.measure(self._session, server, app, saves=self._size.saves), app
        )
        if each is not None:
            self.found.reload.setdefault((server.name, app), {})[number] = each
            times, began = (
                ", ".join(f"{1000 * value:.0f}" for value in values)
                for values in ([one.seconds for one in each], [one.until_import for one in each])
            )
            self._say(
                number,
                "reload",
                server,
                f"{app}: {times} ms ({began} to the import), {sum(one.lost for one in each)} lost",
            )


def run(session: Session, size: Size, *, parts: Collection[str]) -> None:
    """Measure and publish."""
    session.check_docs("fleet")
    session.share_cores()
    fleet = Fleet(session, size)
    if "parent" in parts:
        fleet.parents()
    for number in range(size.rounds if set(parts) - {"parent"} else 0):
        fleet.round(number, parts)
    environment, versions = session.environment()
    text = "\n\n".join(
        [
            measured("fleet", environment, how(size)),
            *sections(fleet.found, session.servers, size),
            "\n".join(report.version_lines(versions, session.catalogue.common_distributions)),
            f"Commands, each prefixed with `taskset -c {session.server_core},{session.load_core}`:",
            "\n".join(f"- {server.label}: {_commands(server)}" for server in session.servers),
        ]
    )
    commands = {server.name: _commands(server) for server in session.servers}
    results = {
        part.name: {"/".join(key) if isinstance(key, tuple) else key: value for key, value in found.items()}
        for part in dataclasses.fields(Found)
        if (found := getattr(fleet.found, part.name))
    }
    record: dict[str, Any] = {"environment": environment, "versions": versions, "commands": commands}
    session.give_out("fleet", text + "\n", {**record, "results": results})


def sections(found: Found, servers: list[Server], size: Size) -> list[str]:
    """The tables of what was measured, each with what it is of. Raises BenchError when there is none."""
    labels = {server.name: server.label for server in servers}
    ours = next((server.name for server in servers if server.role == "ours"), "")
    texts = []
    if found.scaling:
        texts += [
            f"Two workers: wrk with one thread and {scaling.CONNECTIONS} kept-alive connections for {size.seconds} s, "
            "of a handler that uses 2 ms of CPU.",
            tables.scaling(found.scaling, labels, ours),
        ]
    if found.parent:
        texts += [
            f"The parent of two workers in {size.idle:g} s without a request. Its CPU is that of the process's clock; "
            f"less than {tables.IDLE_TARGET:.2%} of a core counts as none: in 20 s the kernel's tick of 10 ms.",
            tables.parents(found.parent, labels, ours),
        ]
    if found.roll:
        texts += [
            f"SIGHUP to two workers whose import sleeps {roll.IMPORT_SECONDS:g} s, under {roll.KEPT} kept-alive "
            f"clients and {roll.FRESH} with a new connection for each request, each {1000 * roll.PAUSE_SECONDS:.0f} ms "
            "after its last answer. All are replaced when both new workers have answered and nothing else answers for "
            "a second. The application's own is the time in which at least one new worker is in its import.",
            tables.rolls(found.roll, labels, ours),
        ]
    if found.crash:
        texts += [
            f"SIGKILL to one of two such workers, with a new connection every {1000 * crash.PROBE_SECONDS:.0f} ms. A "
            "boot is that of a third worker (SIGTTIN), from the start of its process to its first answer.",
            tables.crashes(found.crash),
        ]
    if found.reload:
        texts += [
            f"A source file is saved, {size.saves} in each round, with a new connection every "
            f"{1000 * reload.PROBE_SECONDS:.0f} ms; both servers watch with watchfiles, with their default delays.",
            tables.reloads(found.reload, labels, ours),
        ]
    if not texts:
        raise BenchError("nothing could be measured")
    return texts


def how(size: Size) -> str:
    """What all tables have in common."""
    rounds = f"{size.rounds} interleaved rounds" if size.rounds > 1 else "one round"
    return f"{rounds}; servers and clients share both cores."


def _commands(server: Server) -> str:
    found = []
    if server.fleet:
        found.append(" ".join([server.shown, *server.with_workers(2)]))
    if server.reload:
        found.append(" ".join([server.shown, *server.reload]))
    return ", ".join(f"`{one}`" for one in found)

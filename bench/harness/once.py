"""`once`: `check_lock` per second on each store, and what the middleware costs requests without a key.

There is no peer, and no server of bench/peers.toml: what is compared with is the barest command of each store, and
FastAPI alone. Stores on servers get servers of their own, on the load core; this process moves to the server core.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import report
from .errors import BenchError
from .report import Spread
from .session import Session, measured

if TYPE_CHECKING:
    from bench.once_servers import Round
    from testing.stores import Server

# What issue 4 asks for.
SQLITE_TARGET = 10_000  # check_lock per second
REDIS_TARGET, POSTGRES_TARGET = 0.8, 0.5  # of the bare command
MIDDLEWARE_TARGET = 0.03  # of FastAPI's own time

_CALLERS = 200  # of SQLite
_SHORT = 7  # short rounds for each one that was asked for


def run(session: Session, *, rounds: int, quick: bool) -> None:
    """Measure and publish. A server that is not installed is reported, and left out."""
    session.check_docs("once")
    try:
        from bench import once, once_middleware, once_servers  # noqa: PLC0415 - the other measurements need none of it
        from testing.stores import PostgresServer, RedisServer  # noqa: PLC0415
    except ImportError as exc:
        raise BenchError(f"once needs what the tests need, pip install -e '.[test]': {exc}") from None
    size = 100 if quick else 1000
    short = max(2, _SHORT * rounds)
    data: dict[str, Any] = {}
    with ExitStack() as stack:
        servers = _servers(session, stack, {"Redis": RedisServer, "PostgreSQL": PostgresServer})
        os.sched_setaffinity(0, {session.server_core})
        stack.callback(os.sched_setaffinity, 0, {session.load_core})
        rows = []
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="lastcall-once-"))
        for mode in ("normal", "full"):
            session.progress(f"SQLite, synchronous={mode}")
            url = f"sqlite:///{Path(directory, mode)}.db?synchronous={mode}"
            rates = asyncio.run(once.measure(url, 30 * size, _CALLERS, rounds))
            data[f"sqlite {mode}"] = rates
            rows.append(sqlite_row(mode, rates))
        targets = {"Redis": REDIS_TARGET, "PostgreSQL": POSTGRES_TARGET}
        for name, server in servers.items():
            for callers in (1, 16):
                session.progress(f"{name}, {callers} at once")
                ours, theirs = asyncio.run(
                    once_servers.turns(server.url, [server.pid], calls=size, callers=callers, rounds=short)
                )
                data[f"{name} {callers}"] = {"ours": ours, "bare": theirs}
                rows.append(server_row(name, callers, ours, theirs, once_servers.ratios(ours, theirs), targets[name]))
        costs = []
        for method in once_middleware.METHODS:
            session.progress(f"middleware, {method}")
            with_it, without = asyncio.run(once_middleware.turns(method, 2 * size, short))
            data[f"middleware {method}"] = {"with": with_it, "without": without}
            costs.append(middleware_row(method, with_it, without, once_middleware.added(with_it, without)))
    how = (
        f"one process on one core, servers on the other. SQLite: {rounds} rounds of {30 * size} calls by {_CALLERS} "
        f"callers; servers: {short} interleaved rounds of {size} calls; middleware: {short} interleaved rounds of "
        f"{2 * size} requests in memory. CPU is that of client and server together. Keys are new in every call; "
        "PostgreSQL runs without `fsync`."
    )
    environment = f"CPython {platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}"
    versions = _versions()
    text = "\n".join(
        [
            measured("once", environment, how),
            "",
            report.table(
                [
                    "`check_lock`",
                    "calls/s: median (min-max)",
                    "bare command, calls/s",
                    "CPU, bare ÷ ours (quartiles)",
                    "target",
                ],
                rows,
            ),
            "",
            report.table(
                ["without a key", "FastAPI, CPU in µs per request", "middleware adds", "of FastAPI", "target"], costs
            ),
            "",
            "Versions: " + ", ".join(f"{name} {found}" for name, found in versions.items()) + ".\n",
        ]
    )
    session.give_out("once", text, {"environment": environment, "versions": versions, "results": data})


def sqlite_row(mode: str, rates: list[float]) -> list[str]:
    """A line of the first table."""
    found = Spread.of(rates)
    goal = f"at least {report.thousands(SQLITE_TARGET)}/s: {verdict(found.median >= SQLITE_TARGET)}"
    return [f"SQLite, `synchronous={mode}`, {_CALLERS} at once", _rates(found), "-", "-", goal]


def server_row(
    name: str,
    callers: int,
    ours: list[Round],
    theirs: list[Round],
    ratio: tuple[float, float, float],
    target: float,
) -> list[str]:
    """A line of the first table."""
    return [
        f"{name}, {callers} at once",
        _rates(Spread.of(one.per_second for one in ours)),
        report.thousands(statistics.median(one.per_second for one in theirs)),
        f"{ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})",
        f"at least {target:g}: {verdict(ratio[0] >= target)}",
    ]


def middleware_row(method: str, with_it: list[float], without: list[float], added: float) -> list[str]:
    """A line of the second table."""
    own = statistics.median(without)
    return [
        method,
        f"{Spread.of(without).text()}; with it {Spread.of(with_it).text()}",
        f"{added:.2f}",
        f"{added / own:.1%}",
        f"less than {MIDDLEWARE_TARGET:.0%}: {verdict(added / own < MIDDLEWARE_TARGET)}",
    ]


def verdict(reached: bool) -> str:
    """How the tables say it."""
    return "met" if reached else "missed"


def _rates(found: Spread) -> str:
    return f"{report.thousands(found.median)} ({report.thousands(found.low)}-{report.thousands(found.high)})"


def _servers(session: Session, stack: ExitStack, kinds: dict[str, type[Server]]) -> dict[str, Server]:
    """One server of each kind, on the load core."""
    found = {}
    for name, kind in kinds.items():
        session.progress(f"starting {name}")
        try:
            server = kind()
            stack.callback(server.remove)
            server.start()
        except (OSError, RuntimeError) as exc:
            session.problem(f"{name} is not measured: {exc}")
            continue
        found[name] = server
    return found


def _versions() -> dict[str, str]:
    """Of the libraries that were in the way."""
    names = {"redis-py": "redis", "psycopg": "psycopg", "fastapi": "fastapi", "starlette": "starlette"}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    ours = version("lastcall") + (f" ({commit})" if commit else "")
    return {"lastcall": ours, "SQLite": sqlite3.sqlite_version} | {name: version(of) for name, of in names.items()}

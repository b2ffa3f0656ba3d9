#!/usr/bin/env python3
"""What ``check_lock`` costs on Redis and PostgreSQL, beside the barest command that could do it, in turns.

    python -m bench.once_servers [--calls 1000] [--callers 1 16] [--rounds 35] [--redis URL] [--postgres URL]

Redis: a bare ``SET key value NX PX`` through the same client. PostgreSQL: a bare ``INSERT … ON CONFLICT DO NOTHING``
through the same pool, into a table with a primary key and nothing else. Without a URL, a server of its own is started
(as the tests do; PostgreSQL without ``fsync``, which makes the bare statement look best).

Prints the medians, in calls per second, the median of the rounds' ratios, and their quartiles. The ratio is that of the
CPU time of client and server together (with a URL, of the client alone): what they would do on one core, whoever else
uses this machine. Keys are new in every call.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import NamedTuple

from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from bench.harness.processes import cpu_ns, descendants, parents
from bench.once import rate
from lastcall_once import AsyncOnce
from testing.stores import PostgresServer, RedisServer, Server

Call = Callable[[str], Awaitable[object]]

TABLE = "once_bench_bare"
CONNECTIONS = 8  # of the PostgreSQL store, if nobody says otherwise


@asynccontextmanager
async def bare_redis(url: str) -> AsyncIterator[Call]:
    """``SET key value NX PX``."""
    client = Redis.from_url(url, protocol=2)
    try:
        yield lambda key: client.set(key, uuid.uuid4().hex, nx=True, px=600_000)
    finally:
        await client.aclose()


@asynccontextmanager
async def bare_postgres(url: str) -> AsyncIterator[Call]:
    """``INSERT … ON CONFLICT DO NOTHING``."""
    insert = f"INSERT INTO {TABLE} (key, token) VALUES (%s, %s) ON CONFLICT DO NOTHING".encode()
    async with AsyncConnectionPool(url, min_size=1, max_size=CONNECTIONS, kwargs={"autocommit": True}) as pool:
        async with pool.connection() as connection:
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (key text PRIMARY KEY, token text)".encode())

        async def call(key: str) -> None:
            async with pool.connection() as connection:
                await connection.execute(insert, (key, uuid.uuid4().hex), prepare=True)

        try:
            yield call
        finally:
            async with pool.connection() as connection:
                await connection.execute(f"DROP TABLE {TABLE}".encode())


def bare(url: str) -> AbstractAsyncContextManager[Call]:
    """The barest command of the server at ``url``."""
    return bare_redis(url) if url.startswith("redis") else bare_postgres(url)


class Round(NamedTuple):
    """One round: calls per second, and CPU time per call in µs, of this process and of the server together."""

    per_second: float
    cpu_us: float


async def turns(
    url: str, pids: Sequence[int], *, calls: int, callers: int, rounds: int
) -> tuple[list[Round], list[Round]]:
    """Some interleaved rounds of ``check_lock`` and of the bare command; ``pids`` are the server's, if it is here."""
    everything = [os.getpid(), *pids]

    async def one(call: Call) -> Round:
        used = cpu_ns(everything)
        per_second = await rate(call, calls, callers)
        return Round(per_second, (cpu_ns(everything) - used) / calls / 1000)

    ours: list[Round] = []
    theirs: list[Round] = []
    async with bare(url) as bare_call, AsyncOnce(url, ttl=600.0) as once:
        for call in (bare_call, once.check_lock):
            await one(call)  # connects, and warms up
        everything += [pid for root in pids for pid in descendants(root, parents()) if pid not in pids]
        for number in range(rounds):
            for call, found in [(once.check_lock, ours), (bare_call, theirs)][:: 1 if number % 2 else -1]:
                found.append(await one(call))
    return ours, theirs


def ratios(ours: Sequence[Round], theirs: Sequence[Round]) -> tuple[float, float, float]:
    """How much of the bare command's speed ours has, by CPU time: the rounds' median, and the quartiles around it."""
    low, median, high = statistics.quantiles(
        [other.cpu_us / mine.cpu_us for mine, other in zip(ours, theirs, strict=True)], n=4
    )
    return median, low, high


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="check_lock on Redis and PostgreSQL, beside their barest commands.")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=35)
    parser.add_argument("--redis", metavar="URL")
    parser.add_argument("--postgres", metavar="URL")
    options = parser.parse_args()
    kinds: list[tuple[str | None, type[Server]]] = [(options.redis, RedisServer), (options.postgres, PostgresServer)]
    for given, kind in kinds:
        with ExitStack() as stack:
            url, pids = given, list[int]()
            if url is None:
                server = kind()
                stack.callback(server.remove)
                server.start()
                url, pids = server.url, [server.pid]
            for callers in options.callers:
                ours, theirs = asyncio.run(
                    turns(url, pids, calls=options.calls, callers=callers, rounds=options.rounds)
                )
                ratio, low, high = ratios(ours, theirs)
                ours_per_second, bare_per_second = (
                    statistics.median(one.per_second for one in found) for found in (ours, theirs)
                )
                print(
                    f"{kind.__name__}, {callers} at once: check_lock {ours_per_second:.0f}/s, bare "
                    f"{bare_per_second:.0f}/s; by CPU time {ratio:.2f} of it ({low:.2f} to {high:.2f})"
                )


if __name__ == "__main__":
    main()

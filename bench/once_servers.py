#!/usr/bin/env python3
"""What ``check_lock`` costs on Redis and PostgreSQL, beside the barest command that could do it, in turns.

    python bench/once_servers.py [--calls 5000] [--callers 1 16] [--rounds 7] [--redis URL] [--postgres URL]

Redis: a bare ``SET key value NX PX`` through the same client. PostgreSQL: a bare ``INSERT … ON CONFLICT DO NOTHING``
through the same pool, into a table with a primary key and nothing else. Without a URL, a server of its own is started
(as the tests do; PostgreSQL without ``fsync``, which makes the bare statement look best). Prints the medians, in calls
per second, their ratio, and the least and greatest ratio of a round. Keys are new in every call.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager

from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from lastcall.once import AsyncOnce
from tests.once.servers import PostgresServer, RedisServer, Server

Call = Callable[[str], Awaitable[object]]

TABLE = "once_bench_bare"
CONNECTIONS = 8  # of the PostgreSQL store, if nobody says otherwise


async def rate(call: Call, calls: int, callers: int) -> float:
    """Calls per second, each with a new key, when ``callers`` make them one after another."""
    run = uuid.uuid4().hex
    keys = iter(range(calls))

    async def caller() -> None:
        for number in keys:
            await call(f"bench/{run}/{number}")

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return calls / (time.perf_counter() - started)


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


async def measure(url: str, options: argparse.Namespace) -> None:
    """Measure one server, and print."""
    of_redis = url.startswith("redis")
    name, bare = ("Redis", bare_redis(url)) if of_redis else ("PostgreSQL", bare_postgres(url))
    async with bare as bare_call, AsyncOnce(url, ttl=600.0) as once:
        for callers in options.callers:
            for call in (bare_call, once.check_lock):
                await rate(call, options.calls // 5, callers)
            ours, theirs = [], []
            for number in range(options.rounds):
                for call, found in [(once.check_lock, ours), (bare_call, theirs)][:: 1 if number % 2 else -1]:
                    found.append(await rate(call, options.calls, callers))
            ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
            print(
                f"{name}, {callers} at once: check_lock {statistics.median(ours):.0f}/s, bare "
                f"{statistics.median(theirs):.0f}/s: {statistics.median(ratios):.2f} of it "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="check_lock on Redis and PostgreSQL, beside their barest commands.")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--redis", metavar="URL")
    parser.add_argument("--postgres", metavar="URL")
    options = parser.parse_args()
    kinds: list[tuple[str | None, type[Server]]] = [(options.redis, RedisServer), (options.postgres, PostgresServer)]
    for given, kind in kinds:
        with ExitStack() as stack:
            url = given
            if url is None:
                server = kind()
                stack.callback(server.remove)
                server.start()
                url = server.url
            asyncio.run(measure(url, options))


if __name__ == "__main__":
    main()

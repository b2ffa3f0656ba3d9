#!/usr/bin/env python3
"""What ``IdempotencyMiddleware`` costs a FastAPI application whose requests have no key: in memory, in turns.

    taskset -c 0 python -m bench.once_middleware [--requests 3000] [--rounds 25]

The application has one route that returns a JSON object. It is called as a server would call it, without a server:
what the middleware adds is compared with the application's own time alone, so that a server makes its share smaller.
Prints the medians of CPU time per request, and the median of the rounds' differences.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from lastcall_once import IdempotencyMiddleware

METHODS = ("GET", "POST")  # POST is looked at for a key, GET is not
HEADERS = [
    (b"host", b"localhost"),
    (b"accept", b"*/*"),
    (b"user-agent", b"bench"),
    (b"content-type", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"authorization", b"Bearer 0123456789abcdef"),
]


def application() -> FastAPI:
    """The application."""
    app = FastAPI()

    @app.api_route("/", methods=list(METHODS))
    async def root() -> dict[str, str]:
        return {"message": "Hello, World!"}

    return app


async def cpu_us(app: Any, method: str, requests: int) -> float:
    """CPU time per request, in microseconds."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": HEADERS,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    statuses = set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if "status" in message:
            statuses.add(message["status"])

    began = time.process_time()
    for _ in range(requests):
        await app(dict(scope), receive, send)
    taken = time.process_time() - began
    if statuses != {200}:
        raise RuntimeError(f"statuses {statuses} instead of 200")
    return taken / requests * 1e6


async def turns(method: str, requests: int, rounds: int) -> tuple[list[float], list[float]]:
    """CPU time per request with the middleware and without it, in µs, for each of some interleaved rounds."""
    plain = application()
    guarded = IdempotencyMiddleware(plain, "memory:")
    with_it: list[float] = []
    without: list[float] = []
    await cpu_us(plain, method, requests)
    await cpu_us(guarded, method, requests)
    for number in range(rounds):
        pairs: list[tuple[Any, list[float]]] = [(guarded, with_it), (plain, without)]
        for app, found in pairs[:: 1 if number % 2 else -1]:
            found.append(await cpu_us(app, method, requests))
    return with_it, without


def added(with_it: Sequence[float], without: Sequence[float]) -> float:
    """The median of the rounds' differences, in µs."""
    return statistics.median(mine - other for mine, other in zip(with_it, without, strict=True))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What the middleware costs requests without a key.")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    for method in METHODS:
        with_it, without = asyncio.run(turns(method, options.requests, options.rounds))
        cost, own = added(with_it, without), statistics.median(without)
        print(f"{method}: FastAPI {own:.2f} µs, the middleware {cost:+.2f} µs: {cost / own:.2%} of it")


if __name__ == "__main__":
    main()

"""``httpx.AsyncClient`` hears the 503 that ends its upload: an answer of ours is not lost to a RST that follows."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import httpx
import pytest

from testing.peer import Peer
from testing.process import ServerProcess
from tests.process.conftest import Start, wait_for_output

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZES = (1 * MIB, 20 * MIB)
PIECE = bytes(64 * 1024)
LONG = 60.0


async def upload(url: str, size: int) -> int:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // len(PIECE)):
            yield PIECE

    async with httpx.AsyncClient(trust_env=False, timeout=LONG) as client:
        return (await client.post(url, content=body())).status_code


@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_an_upload_beyond_the_concurrency_limit_hears_503(start: Start, driver: str) -> None:
    server = start("never_reads:app", "--driver", driver, "--limit-concurrency", "1")
    with Peer(server.addresses[0]) as peer:
        peer.request("/")
        wait_for_output(server, "asked")
        assert [asyncio.run(upload(server.addresses[0], size)) for size in SIZES] == [503] * len(SIZES)


@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_an_upload_at_the_end_of_the_grace_hears_503(start: Start, driver: str) -> None:
    server = start("never_reads:app", "--driver", driver, "--timeout-graceful-shutdown", "1")
    assert asyncio.run(in_the_stop(server)) == [503] * len(SIZES)
    assert server.wait() == 0


async def in_the_stop(server: ServerProcess) -> list[int]:
    uploads = [asyncio.create_task(upload(server.addresses[0], size)) for size in SIZES]
    await asyncio.to_thread(wait_for_output, server, "asked\n" * len(SIZES))
    await asyncio.to_thread(server.signal, signal.SIGTERM)
    return await asyncio.gather(*uploads)

"""What one client does on one connection: the good, the slow, the rude and the broken.

A scenario raises `WrongAnswer`, `Ended`, TimeoutError or OSError if the server did not do what it owes; nothing else
may come out. Scenarios that mostly wait are *slow*: many of them run at a time, beside a few of the others.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass

from tests.soak import asks
from tests.soak.asks import Ask, request
from tests.soak.client import Address, Answer, Ended, Wire, WrongAnswer, connected
from tests.soak.content import CONTENT

# The server's timeouts under soak, in seconds, and how late it may be.
TIMEOUT_HEADER = 2.0
TIMEOUT_BODY = 3.0
TIMEOUT_WRITE = 3.0
TIMEOUT_KEEP_ALIVE = 5.0
LATE = 4.0


@dataclass
class Client:
    """What a scenario works with: where the server is, chance, and the pace of the whole load."""

    address: Address
    rng: random.Random
    name: str
    pace: Callable[[], Awaitable[None]]
    answered: int = 0
    _tokens: int = 0

    def token(self) -> str:
        """A new id, no other request has it."""
        self._tokens += 1
        return f"{self.name}-{self._tokens}"

    def connected(self, *, small_buffer: bool = False) -> AbstractAsyncContextManager[Wire]:
        return connected(self.address, small_buffer=small_buffer)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    async def ask(self, wire: Wire, ask: Ask) -> None:
        """Send a request and check its answer."""
        if self.chance(0.1):
            await wire.send_split(ask.data, self.rng)
        else:
            await wire.send(ask.data)
        await self.check(wire, ask)

    async def check(self, wire: Wire, ask: Ask) -> None:
        try:
            answer = await wire.answer(ask.method)
        except Ended as error:
            raise WrongAnswer(f"{ask}: no answer, the connection was {error}") from None
        ask.check(answer)
        self.answered += 1

    async def get(self, wire: Wire, path: str, body: bytes | memoryview) -> None:
        """GET ``path``, and expect ``body``."""
        token = self.token()
        await self.ask(wire, Ask("GET", token, request("GET", path, token), body))


Scenario = Callable[[Client], Awaitable[None]]
FAST: dict[Scenario, int] = {}
SLOW: dict[Scenario, int] = {}


def scenario(pool: dict[Scenario, int], weight: int) -> Callable[[Scenario], Scenario]:
    """Put a scenario into ``pool``; it is drawn with probability ``weight`` / total."""

    def add(function: Scenario) -> Scenario:
        pool[function] = weight
        return function

    return add


async def expect_end(wire: Wire, what: str, within: float = LATE) -> None:
    """Nothing more may come, and the connection must end."""
    try:
        async with asyncio.timeout(within):
            rest = await wire.take_end()
    except TimeoutError:
        raise WrongAnswer(f"{what}: the connection was not closed within {within} s") from None
    if rest:
        raise WrongAnswer(f"{what}: {len(rest)} bytes too many: {rest[:100]!r}")


async def expect_status(wire: Wire, status: int, what: str, method: str = "GET") -> Answer:
    try:
        answer = await wire.answer(method)
    except Ended as error:
        raise WrongAnswer(f"{what}: no answer, the connection was {error}") from None
    if answer.status != status or not answer.complete:
        raise WrongAnswer(f"{what}: {answer.status} ({'complete' if answer.complete else 'cut'}), not {status}")
    return answer


# -- requests that are answered ---------------------------------------------------------------------------------------


@scenario(FAST, 24)
async def kept_alive(client: Client) -> None:
    async with client.connected() as wire:
        for _ in range(client.rng.randint(1, 60)):
            await client.ask(wire, asks.small(client.rng, client.token()))
            await client.pace()
            if client.chance(0.05):
                await asyncio.sleep(client.rng.uniform(0, 0.5))
        wire.leave(reset=client.chance(0.2))


@scenario(FAST, 16)
async def pipelined(client: Client) -> None:
    async with client.connected() as wire:
        for _ in range(client.rng.randint(1, 4)):
            batch = [asks.small(client.rng, client.token()) for _ in range(client.rng.randint(2, 40))]
            data = b"".join(ask.data for ask in batch)
            if client.chance(0.5):
                await wire.send_split(data, client.rng)
            else:
                await wire.send(data)
            for ask in batch:
                await client.check(wire, ask)
            await client.pace()


@scenario(FAST, 3)
async def pipelined_and_left(client: Client) -> None:
    """Nobody waits for the answers."""
    async with client.connected() as wire:
        batch = [asks.small(client.rng, client.token()) for _ in range(client.rng.randint(2, 40))]
        await wire.send(b"".join(ask.data for ask in batch))
        for ask in batch[: client.rng.randrange(len(batch))]:
            await client.check(wire, ask)
        wire.leave(reset=client.chance(0.5))


@scenario(FAST, 8)
async def uploads(client: Client) -> None:
    async with client.connected() as wire:
        for _ in range(client.rng.randint(1, 3)):
            await client.ask(wire, asks.upload(client.rng, client.token(), asks.upload_size(client.rng)))
            await client.pace()


@scenario(FAST, 2)
async def expecting_upload(client: Client) -> None:
    async with client.connected() as wire:
        ask = asks.upload(client.rng, client.token(), asks.upload_size(client.rng), "Expect: 100-continue")
        head, _, body = ask.data.partition(b"\r\n\r\n")
        await wire.send(head + b"\r\n\r\n")
        await expect_status(wire, 100, "Expect: 100-continue")
        await wire.send(body)
        await client.check(wire, ask)


@scenario(FAST, 4)
async def http_1_0(client: Client) -> None:
    async with client.connected() as wire:
        while True:
            ask = asks.old(client.rng, client.token())
            await client.ask(wire, ask)
            if not ask.framed:
                return await expect_end(wire, "HTTP/1.0")
            if client.chance(0.3):
                return


@scenario(FAST, 2)
async def half_closed(client: Client) -> None:
    """A request with a FIN right behind it is answered all the same (``printf … | nc -N``)."""
    async with client.connected() as wire:
        path, body = client.rng.choice([("/plain", b"ok"), (f"/sleep?ms={client.rng.randrange(200)}", b"slept")])
        token = client.token()
        await wire.send(request("GET", path, token))
        wire.fin()
        await client.check(wire, Ask("GET", token, b"GET " + path.encode(), body))
        await expect_end(wire, "half-closed")


@scenario(FAST, 2)
async def half_closed_pipeline(client: Client) -> None:
    """A FIN while a response is being sent says that nobody wants the rest, so any answer may be the last, and cut."""
    async with client.connected() as wire:
        batch = [asks.small(client.rng, client.token()) for _ in range(client.rng.randint(2, 20))]
        await wire.send(b"".join(ask.data for ask in batch))
        wire.fin()
        with suppress(Ended):
            for ask in batch:
                answer = await wire.answer(ask.method)
                if not answer.complete:
                    break
                ask.check(answer)
                client.answered += 1
        await expect_end(wire, "half-closed")


@scenario(FAST, 3)
async def in_background(client: Client) -> None:
    """The next request does not wait for what a handler does after its response."""
    async with client.connected() as wire:
        for _ in range(client.rng.randint(1, 5)):
            await client.get(wire, f"/background?ms={client.rng.randrange(300)}", b"in background")
            await client.get(wire, "/plain", b"ok")
            await client.pace()


@scenario(FAST, 3)
async def answered_early(client: Client) -> None:
    """The answer comes before the body has been read: a short rest is skipped, a long one costs the connection."""
    async with client.connected() as wire:
        short = client.chance(0.5)
        n = client.rng.randrange(1, 30_000) if short else client.rng.randrange(300_000, 1_000_000)
        token = client.token()
        path = f"/early?pieces={client.rng.randrange(2)}"
        data = request("POST", path, token, f"Content-Length: {n}", body=CONTENT[:n])
        if short:
            await client.ask(wire, Ask("POST", token, data, b"early"))
            return await client.get(wire, "/plain", b"ok")
        with suppress(ConnectionError):  # the server need not take all of it
            await wire.send(data)
        await client.check(wire, Ask("POST", token, data, b"early"))
        await expect_end(wire, "a long unread body")


# -- handlers that do wrong --------------------------------------------------------------------------------------------


@scenario(FAST, 2)
async def failing(client: Client) -> None:
    """No response at all is a 500, and the connection lives on."""
    async with client.connected() as wire:
        for _ in range(client.rng.randint(1, 3)):
            path = client.rng.choice(["/raises", "/silent"])
            await wire.send(request("GET", path, client.token()))
            await expect_status(wire, 500, path)
            client.answered += 1
            await client.get(wire, "/plain", b"ok")


@scenario(FAST, 2)
async def failing_in_the_middle(client: Client) -> None:
    """A response without its end must never look complete."""
    async with client.connected() as wire:
        n = client.rng.randrange(1, 50_000)
        path = client.rng.choice([f"/raises?n={n}", f"/unfinished?n={n}", f"/misjudged?n={n}&length={n + 1}"])
        version = client.rng.choice(["1.1", "1.1", "1.0"])
        await wire.send(request("GET", path, client.token(), version=version))
        with suppress(Ended):  # with a RST at its end, which may overtake the head
            answer = await wire.answer()
            if answer.complete:
                raise WrongAnswer(f"{path} (HTTP/{version}) looks complete")
            if answer.body != CONTENT[: len(answer.body)]:
                raise WrongAnswer(f"{path}: other bytes")


@scenario(FAST, 1)
async def too_long(client: Client) -> None:
    """A body longer than its content-length is cut there, and the connection lives on."""
    async with client.connected() as wire:
        length = client.rng.randrange(20_000)
        await client.get(wire, f"/misjudged?n={length + 100}&length={length}", CONTENT[:length])
        await client.get(wire, "/plain", b"ok")


# -- clients that do wrong ---------------------------------------------------------------------------------------------


@scenario(FAST, 3)
async def malformed(client: Client) -> None:
    async with client.connected() as wire:
        status, data = client.rng.choice(asks.MALFORMED)
        if client.chance(0.3):
            await client.get(wire, "/plain", b"ok")
        if client.chance(0.3):
            with suppress(ConnectionError):  # the rest of a head too long meets a closed connection
                await wire.send_split(data, client.rng)
        else:
            await wire.send(data)
        await expect_status(wire, status, repr(data[:60]))
        await expect_end(wire, repr(data[:60]))


@scenario(FAST, 1)
async def garbage(client: Client) -> None:
    """Whatever bytes: an error or a close, never a 2xx, never nothing."""
    async with client.connected() as wire:
        data = bytes([client.rng.randrange(33)]) + client.rng.randbytes(client.rng.randrange(1, 5_000)) + b"\r\n\r\n"
        with suppress(ConnectionError):
            await wire.send(data)
        wire.fin()
        with suppress(Ended):
            answer = await wire.answer()
            if answer.status < 400:
                raise WrongAnswer(f"garbage: {answer.status}")
        await expect_end(wire, "garbage")


@scenario(FAST, 4)
async def cut_uploads(client: Client) -> None:
    async with client.connected() as wire:
        ask = asks.upload(client.rng, client.token(), asks.upload_size(client.rng))
        head = ask.data.index(b"\r\n\r\n") + 4
        await wire.send(ask.data[: client.rng.randrange(head, len(ask.data) - 5)])
        if client.chance(0.4):
            wire.leave(reset=True)
        elif client.chance(0.5):
            wire.leave(reset=False)
        else:
            wire.fin()
            await expect_end(wire, "a cut upload")


@scenario(FAST, 2)
async def silent_visit(client: Client) -> None:
    """Connect, say nothing or little, leave."""
    async with client.connected() as wire:
        if client.chance(0.5):
            await wire.send(b"GET /plain HTTP/1.1\r\nHo"[: client.rng.randrange(23)])
        wire.leave(reset=client.chance(0.5))


@scenario(FAST, 2)
async def left_before_the_answer(client: Client) -> None:
    async with client.connected() as wire:
        await wire.send(request("GET", f"/sleep?ms={client.rng.randrange(300)}", client.token()))
        await asyncio.sleep(client.rng.uniform(0, 0.05))
        wire.leave(reset=client.chance(0.5))


# -- those that take their time ----------------------------------------------------------------------------------------


@scenario(SLOW, 8)
async def events_left(client: Client) -> None:
    """A stream of events, left after a random time: by FIN, by RST, by a close with bytes unread."""
    style = client.rng.choice(["polling", "listening", "sending"])
    async with client.connected() as wire:
        await wire.send(request("GET", f"/events/{style}?ms={client.rng.randint(5, 300)}", client.token()))
        until = time.monotonic() + client.rng.uniform(0, 4)
        if client.chance(0.3):
            await asyncio.sleep(until - time.monotonic())
        else:
            await wire.take_until(b"\r\n\r\n")
            number = 0
            while time.monotonic() < until:
                await wire.take_until(b"\r\n")
                event = await wire.take_until(b"\n\n\r\n")
                if event != b"data: %d\n\n\r\n" % number:
                    raise WrongAnswer(f"event {number} is {event!r}")
                number += 1
            client.answered += 1
        if client.chance(0.3):
            wire.fin()
            await wire.take_end()
        else:
            wire.leave(reset=client.chance(0.5))


@scenario(SLOW, 5)
async def slow_download(client: Client) -> None:
    async with client.connected(small_buffer=True) as wire:
        n = client.rng.randrange(200_000, 1_000_000)
        path = client.rng.choice([f"/bytes?n={n}", f"/stream?n={n}&piece={client.rng.randint(1_000, 100_000)}"])
        seconds = client.rng.uniform(1, 5)
        wire.most = 32_768
        wire.pause = seconds / (n / wire.most)
        if client.chance(0.7):
            return await client.get(wire, path, CONTENT[:n])
        await wire.send(request("GET", path, client.token()))
        await asyncio.sleep(client.rng.uniform(0, 1))
        for _ in range(client.rng.randrange(10)):
            await wire.fill()
        wire.leave(reset=client.chance(0.5))


@scenario(SLOW, 1)
async def stalled_download(client: Client) -> None:
    """Whoever reads nothing for longer than --timeout-write is cut off, and visibly so."""
    async with client.connected(small_buffer=True) as wire:
        await wire.send(request("GET", "/endless", client.token()))
        await asyncio.sleep(2 * TIMEOUT_WRITE + LATE)
        async with asyncio.timeout(LATE):
            await wire.take_end()
        if not wire.was_reset:
            raise WrongAnswer("a stalled download ended with a FIN")


@scenario(SLOW, 2)
async def stalled_upload(client: Client) -> None:
    async with client.connected() as wire:
        n = asks.upload_size(client.rng)
        data = request("POST", "/upload", client.token(), f"Content-Length: {n}", body=CONTENT[: n // 2])
        await wire.send(data)
        async with asyncio.timeout(TIMEOUT_BODY + LATE):
            await expect_status(wire, 400, "a stalled upload", "POST")
        await expect_end(wire, "a stalled upload")


@scenario(SLOW, 4)
async def half_a_head(client: Client) -> None:
    async with client.connected() as wire:
        if client.chance(0.3):
            await client.get(wire, "/plain", b"ok")
        data = request("GET", "/plain", client.token(), "X-Long: " + "y" * client.rng.randrange(5_000))
        await wire.send(data[: client.rng.randrange(1, len(data))])
        async with asyncio.timeout(TIMEOUT_HEADER + LATE):
            await expect_status(wire, 408, "half a head")
        await expect_end(wire, "half a head")


@scenario(SLOW, 2)
async def dripping_head(client: Client) -> None:
    """Slow, but in time."""
    async with client.connected() as wire:
        ask = asks.small(client.rng, client.token())
        for at in range(0, len(ask.data), 1 + len(ask.data) // 10):
            await wire.send(ask.data[at : at + 1 + len(ask.data) // 10])
            await asyncio.sleep(0.05)
        await client.check(wire, ask)


@scenario(SLOW, 3)
async def idle_from_the_start(client: Client) -> None:
    async with client.connected() as wire:
        await expect_end(wire, "an idle connection", TIMEOUT_HEADER + LATE)


@scenario(SLOW, 3)
async def idle_after_a_request(client: Client) -> None:
    async with client.connected() as wire:
        await client.ask(wire, asks.small(client.rng, client.token()))
        await expect_end(wire, "a connection idle after a request", TIMEOUT_KEEP_ALIVE + LATE)


@scenario(SLOW, 3)
async def sleeping_handler(client: Client) -> None:
    async with client.connected() as wire:
        await client.get(wire, f"/sleep?ms={client.rng.randint(100, 2_000)}", b"slept")

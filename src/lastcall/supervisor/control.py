"""The control API: what ``lastcall ctl`` asks the parent, as an ASGI application. Plain JSON; docs/reference/ctl.md.

An order may take minutes. Its answer is a stream of JSON lines: that it was taken, what the server's log says and what
the service is doing meanwhile, and how it was settled. Once taken, an order goes on whether its client stays or not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from lastcall._version import __version__
from lastcall.base.record import Record
from lastcall.base.types import Receive, Scope, Send

logger = logging.getLogger("lastcall.error")

VERSION: Final = 1
"""Of the API: a client refuses a service that speaks a later one than it knows."""

LOOK_SECONDS: Final = 1.0
"""How often an answer in progress looks what the service is doing."""

WAITING_SECONDS: Final = 5.0
"""After so long without a line, one says that the order is still under way: a client can tell a hang from a wait."""

LINES_KEPT: Final = 200
"""Log lines kept for a client that reads slowly; of more, the oldest are dropped."""

ORDERS_AT_ONCE: Final = 16
BODY_AT_MOST: Final = 16 * 1024
WORKERS_AT_MOST: Final = 1024

_JSON: Final = (b"content-type", b"application/json")
_LINES: Final = (b"content-type", b"application/x-ndjson")
_NO_STORE: Final = (b"cache-control", b"no-store")


class Outcome(Record):
    """How an order was settled. ``text`` is a line or several; ``report`` is JSON. ``said``: the log has it already."""

    ok: bool
    text: str
    report: Mapping[str, Any] | None = None
    said: bool = False


class Service(Protocol):
    """What the parent lets its control socket ask and order. All are called in the parent's loop."""

    def doing(self) -> str:
        """A line about what is under way (a roll, a canary, a stop); empty if nothing is.

        Who waits for an order is shown each change of it.
        """
        ...

    async def status(self) -> Mapping[str, Any]:
        """The state of the service: JSON; docs/reference/ctl.md says of what form."""
        ...

    async def inflight(self) -> list[dict[str, Any]]:
        """The requests that run now, longest first: ``worker``, ``method``, ``path``, ``kind``, ``age``, ``client``."""
        ...

    async def order(self, name: str, /, **arguments: Any) -> Outcome:
        """Carry out one of ``ORDERS``, and return when it is settled: refused at once, or done, or failed.

        May be called while another order is under way. ``stop`` returns when no worker is left. Never cancelled.
        """
        ...


class _Wrong(Exception):
    """What a request's body has wrong; the message is for its sender."""


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("true or false")
    return value


def _workers(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= WORKERS_AT_MOST:
        raise _Wrong(f"a number of workers from 1 to {WORKERS_AT_MOST}")
    return value


class Argument(Record):
    """One field of an order's body: how it is read, and what it is without being given (``...``: it has to be)."""

    read: Callable[[object], object]
    default: object = ...


ORDERS: Final[Mapping[str, Mapping[str, Argument]]] = {
    "reload": {"canary": Argument(_switch, False)},  # True: through the canary also where --canary was not given
    "promote": {},
    "rollback": {},
    "scale": {"workers": Argument(_workers)},
    "stop": {"force": Argument(_switch, False)},  # True: as a second signal, cancel what still runs
    "stacks": {},
    "upgrade": {},
}
"""The orders, and the arguments of each: what ``Service.order`` may be called with."""

LOOKS: Final = ("status", "inflight")


class ControlApp:
    """The ASGI application. ``end(text)`` ends the answers that are still under way."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._orders: set[asyncio.Task[Outcome]] = set()
        self._watches: set[_Watch] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        name = scope["path"].strip("/")
        if name in LOOKS:
            await self._look(name, scope, send)
        elif name in ORDERS:
            await self._take(name, scope, receive, send)
        elif not name:
            await _answer(send, 200, {"service": "lastcall", "version": __version__, "api": VERSION})
        else:
            await _refuse(send, 404, f"nothing is at /{name}: there are {', '.join((*LOOKS, *ORDERS))}")

    @property
    def under_way(self) -> int:
        """How many orders are not settled."""
        return len(self._orders)

    def end(self, text: str) -> None:
        """Tell whoever waits for an order that this service ends, before it is settled."""
        for watch in self._watches:
            watch.end(text)

    async def _look(self, name: str, scope: Scope, send: Send) -> None:
        if scope["method"] != "GET":
            await _refuse(send, 405, f"/{name} is for GET", (b"allow", b"GET"))
            return
        if name == "status":
            await _answer(send, 200, {**await self._service.status(), "version": __version__, "api": VERSION})
        else:
            await _answer(send, 200, {"inflight": await self._service.inflight()})

    async def _take(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await _refuse(send, 405, f"/{name} is for POST", (b"allow", b"POST"))
            return
        body = await _body(receive)
        if body is None:
            return
        try:
            arguments = _arguments(name, body)
        except _Wrong as wrong:
            await _refuse(send, 400, str(wrong))
            return
        if len(self._orders) >= ORDERS_AT_ONCE:
            await _refuse(send, 503, f"{ORDERS_AT_ONCE} orders are under way")
            return
        with _Watch(self._service) as watch:
            self._watches.add(watch)
            try:
                order = self._begin(name, arguments)
                order.add_done_callback(watch.wake)
                await _tell(order, name, watch, send, whole=_wants_whole(scope))
            finally:
                self._watches.discard(watch)

    def _begin(self, name: str, arguments: Mapping[str, Any]) -> asyncio.Task[Outcome]:
        """A task of its own: it goes on when the client leaves, which cancels that of the request."""
        order = asyncio.ensure_future(self._carry_out(name, arguments))
        self._orders.add(order)
        order.add_done_callback(self._orders.discard)
        return order

    async def _carry_out(self, name: str, arguments: Mapping[str, Any]) -> Outcome:
        try:
            return await self._service.order(name, **arguments)
        except Exception as exc:
            logger.exception("lastcall: internal error in the order %s; please report this", name)
            return Outcome(False, f"an internal error ({type(exc).__name__}); the log has the traceback")


class _Watch(logging.Handler):
    """What happens while a client waits: the lines of the log, in a bounded queue. A context manager."""

    stays = True  # see reconfigure_logging

    def __init__(self, service: Service) -> None:
        super().__init__(logging.INFO)
        self._service = service
        self._lines: deque[dict[str, Any]] = deque(maxlen=LINES_KEPT)
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._doing = service.doing()
        self.ended = ""

    def __enter__(self) -> _Watch:
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of the log, whatever thread it is from."""
        with suppress(Exception):  # arguments that do not fit: the other handlers report it
            line = {"event": "log", "level": record.levelname, "text": record.getMessage()}
            if threading.get_ident() == self._thread:
                self._keep(line)
            else:
                self._loop.call_soon_threadsafe(self._keep, line)

    def _keep(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        self._news.set()

    def wake(self, _done: object = None) -> None:
        """The order is settled."""
        self._news.set()

    def end(self, text: str) -> None:
        """Nobody waits for the order any longer."""
        self.ended = text
        self._news.set()

    def take(self) -> list[dict[str, Any]]:
        """What came since the last call."""
        self._news.clear()
        lines = list(self._lines)
        self._lines.clear()
        doing = self._service.doing()
        if doing != self._doing:
            self._doing = doing
            if doing:
                lines.append({"event": "doing", "text": doing})
        return lines

    async def wait(self, seconds: float) -> None:
        """Wait for news, or so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()


async def _tell(order: asyncio.Task[Outcome], name: str, watch: _Watch, send: Send, *, whole: bool) -> None:
    """The answer to an order: as it goes on, in JSON lines, or, ``whole``, in one piece when it is settled."""
    if not whole:
        await send({"type": "http.response.start", "status": 200, "headers": [_LINES, _NO_STORE]})
        await _send_lines(send, [{"event": "taken", "order": name}])
    silent = 0.0
    while not order.done() and not watch.ended:
        await watch.wait(LOOK_SECONDS)
        lines = watch.take()
        silent = 0.0 if lines else silent + LOOK_SECONDS
        if not lines and silent >= WAITING_SECONDS:
            silent, lines = 0.0, [{"event": "waiting"}]
        if lines and not whole:
            await _send_lines(send, lines)
    last: dict[str, Any] = {"ok": False, "text": watch.ended, "report": None}
    if order.done():
        outcome = order.result()
        last = {"ok": outcome.ok, "text": outcome.text, "report": outcome.report}
    if whole:
        await _answer(send, 200 if last["ok"] else 409, last)
    else:
        await _send_lines(send, [*watch.take(), {"event": "settled" if order.done() else "ended", **last}], more=False)


def _arguments(name: str, body: bytes) -> dict[str, Any]:
    """The arguments of an order out of its body; raises _Wrong."""
    wanted = ORDERS[name]
    try:
        given = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise _Wrong("the body has to be a JSON object, or empty")
    if unknown := sorted(given.keys() - wanted.keys()):
        raise _Wrong(f"/{name} does not know {', '.join(map(repr, unknown))}")
    found: dict[str, Any] = {}
    for field, argument in wanted.items():
        if field not in given and argument.default is ...:
            raise _Wrong(f"/{name} needs {field!r}")
        try:
            found[field] = argument.read(given[field]) if field in given else argument.default
        except _Wrong as wrong:
            raise _Wrong(f"{field!r} has to be {wrong}") from None
    return found


def _wants_whole(scope: Scope) -> bool:
    """Whether the client asks for one JSON document, whose status says how the order was settled."""
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return b"application/json" in accepted and b"ndjson" not in accepted


async def _body(receive: Receive) -> bytes | None:
    """The request's body, which the server bounds (``limit_body``); None if the client has left."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


async def _answer(send: Send, status: int, value: object, *headers: tuple[bytes, bytes]) -> None:
    body = json.dumps(value).encode() + b"\n"
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, _NO_STORE, length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    await _answer(send, status, {"ok": False, "text": text, "report": None}, *headers)


async def _send_lines(send: Send, lines: list[dict[str, Any]], *, more: bool = True) -> None:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    await send({"type": "http.response.body", "body": body, "more_body": more})


def refusing(text: str) -> Callable[[Scope, Receive, Send], Any]:
    """An application that answers 403 to everything: for those who may not ask."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await _refuse(send, 403, text)

    return refuse

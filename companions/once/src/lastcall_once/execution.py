"""One run of a handler under a lease: its heartbeat, and the record of how it ended, made before the client can know.

Theory of operation
-------------------
The handler's messages pass through :meth:`Execution.send`, which keeps a copy of the answer up to a cap. The message
that would complete the client's answer is held back until the record has it: that is the last one, or the one that
completes the ``Content-Length``, or, where there is no body at all, the first. What was held goes out behind it.

How a run ends, and what its record says:

================================================= ======= =============================================================
the answer, but for what follows                  DONE    a retry gets it again
307 and 308                                       ABSENT  the request is to be made elsewhere, with the same key: the
                                                          fingerprint of what follows is its own (RFC 9110 15.4.8)
any 4xx or 5xx with Retry-After                   ABSENT  it says to come again: the key is free, also for a request
                                                          that was corrected meanwhile
another 401, 408, 425, 429 or 503                 FAILED  it says itself that nothing was done: a retry runs
another 5xx; an exception; an answer left         UNKNOWN how far the handler came, nobody knows: ``on_unknown`` decides
unfinished; a cancel by the server                        (frameworks answer 500 for an exception that they caught,
                                                          502 and 504 say that somebody else's answer is missing)
================================================= ======= =============================================================

With ``store_5xx`` every complete 5xx is an answer too, unless it has a Retry-After.

Once the client has left, what the handler sends goes nowhere but into the record. Only when there is nothing left to
keep, the answer being over the cap, does ``send()`` say that nobody listens (OSError): a stream without an end has
then a reason to end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from lastcall_once import problems
from lastcall_once._record import Record
from lastcall_once._types import ASGIApp, Message, Scope, Send
from lastcall_once.answers import answer_of
from lastcall_once.forgotten import complete_forgotten
from lastcall_once.heartbeat import Heartbeat, RenewalThread
from lastcall_once.metrics import Observer
from lastcall_once.own_task import own_task
from lastcall_once.records import Attempt, Event
from lastcall_once.store import Store, StoreError

if TYPE_CHECKING:
    from lastcall_once.fingerprint import Body

_TRIES = 3  # to record an end
_PAUSE = 0.1  # seconds between them
_ENDS = {
    Event.COMPLETE: "completed",
    Event.FAIL: "failed",
    Event.ABANDON: "abandoned",
    Event.RELEASE: "released",
}
_ITERATIONS = 20  # of the loop, for receive() to answer: a framework's own may have tasks in between
_NOT_DONE = frozenset((401, 408, 425, 429))
_SENT_ELSEWHERE = frozenset((307, 308))
_NO_BODY = frozenset((204, 205, 304))
_NOT_RECORDED = "It was carried out, but that could not be recorded. Look at its effect before you repeat it."


class Rules(Record):
    """What an execution has to know of the middleware's options (see there), and whether to keep its cookies."""

    ttl: float
    max_stored: int
    store_5xx: bool
    fail_open: bool
    keep_cookies: bool = True


class Execution:
    """One run. ``send`` and the body's ``receive`` are what the handler gets in place of the server's.

    ``disconnected``: the client is known to have left. ``settled``: the handler's own end is recorded, or is being.
    ``down``: why that failed, where the answer was withheld for it. ``ended`` is called each time an end is recorded.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name only
        self,
        store: Store,
        attempt: Attempt,
        rules: Rules,
        observer: Observer,
        *,
        thread: RenewalThread,
        body: Body,
        send: Send,
        ended: Callable[[], object],
    ) -> None:
        self.disconnected = False
        self.settled = False
        self.down: StoreError | None = None
        self._store = store
        self._attempt = attempt
        self._rules = rules
        self._observer = observer
        self._body = body
        self._send = send
        self._ended = ended
        self._heartbeat = Heartbeat(
            store, attempt, observer, thread, lost=lambda: self._observer.lease_lost(attempt.key)
        )
        self._since = asyncio.get_running_loop().time()
        self._recording: asyncio.Task[None] | None = None
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._expected: int | None = None
        self._size = 0
        self._pieces: list[bytes] = []
        self._held: list[Message] = []
        self._abandoned = False
        self._passed = False  # a part of the answer has gone out
        self._replaced = False  # it was a problem, in place of the handler's

    async def run(self, app: ASGIApp, scope: Scope) -> BaseException | None:
        """Run the handler to its end. Returns what it raised: out of a task, SystemExit would end the loop."""
        try:
            await app(scope, self.receive, self.send)
        except BaseException as exc:  # the caller raises it
            error: BaseException | None = exc
        else:
            error = None
        await self.abandon()
        if self._recording is not None:  # the handler may have been cancelled while that was on its way
            await asyncio.wait({self._recording})
        if self.disconnected and self.settled:
            self._observer.undelivered(self._attempt.key)
        if error is None and not self._replaced:
            return self.down
        return error

    async def abandon(self) -> None:
        """Record that the handler was cut short, or is being: the end is unknown. Its own end may still follow."""
        if not (self.settled or self._abandoned):
            self._abandoned = True
            try:
                await self._record(Event.ABANDON, None, tries=1)
            except StoreError as exc:
                key = self._attempt.key
                self._observer.warn(
                    "abandon", "once: work was cut short, and its lease has to run out (key %r): %s", key, exc
                )

    async def client_has_left(self) -> bool:
        """Whether the client has left, as far as that can be told in this moment."""
        # Once the body is complete, the server's receive() can only return the disconnect.
        if not self.disconnected and self._body.complete:
            asking = own_task(self._body.ask())
            for _ in range(_ITERATIONS):
                if asking.done():
                    break
                with contextlib.suppress(asyncio.CancelledError):  # the caller knows: anyio's scopes cancel each turn
                    await asyncio.wait({asking}, timeout=0)
            if not asking.done():
                asking.cancel()
            elif not asking.cancelled() and asking.exception() is None:
                self.disconnected = asking.result()["type"] == "http.disconnect"
        return self.disconnected

    async def receive(self) -> Message:
        """ASGI's ``receive``."""
        message = await self._body.receive()
        if message["type"] == "http.disconnect":
            self.disconnected = True
        return message

    async def send(self, message: Message) -> None:
        """ASGI's ``send``."""
        kind = message["type"]
        if kind == "http.response.start":
            self._begin(message)
            if self._expected is None:
                await self._pass(message)
            else:
                # A declared length is a hint that the body follows at once. Until it does, a store that turns out to be
                # down can still be told instead of an answer.
                self._held.append(dict(message))
        elif kind == "http.response.body":
            body = bytes(message.get("body", b""))
            self._keep(body)
            if message.get("more_body", False):
                if self._expected is not None and self._size >= self._expected:
                    self._held.append(dict(message))
                    return
            elif not self.settled:
                await self._finish()
            await self._release()
            await self._pass(message)
        else:
            await self._pass(message)

    def _begin(self, message: Message) -> None:
        self._status = message["status"]
        self._headers = list(message.get("headers", ()))
        if self._status in _NO_BODY:
            self._expected = 0  # whatever a Content-Length says (RFC 9110 8.6)
            return
        for name, value in self._headers:
            if name.lower() == b"content-length" and value.isdigit():
                self._expected = int(value)

    def _keep(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._rules.max_stored:
            self._pieces.clear()
        elif body:
            self._pieces.append(body)

    @property
    def _too_large(self) -> bool:
        return self._size > self._rules.max_stored

    async def _finish(self) -> None:
        """The answer is complete: have it recorded."""
        status = self._status
        event = self._event()
        result = None
        if event is Event.COMPLETE:
            body = None if self._too_large else b"".join(self._pieces)
            answer = answer_of(status, self._headers, body)
            result = (answer if self._rules.keep_cookies else answer.without_cookies()).encode()
        self.settled = True
        self._pieces = []
        try:
            await self._record(event, result, tries=_TRIES)
        except StoreError as exc:
            key, fail_open = self._attempt.key, self._rules.fail_open
            self._observer.store_error(key, "finish", exc, fail_open=fail_open)
            if not fail_open:
                self._observer.warn(
                    "finish", "once: an answer is withheld that cannot be recorded (key %r): %s", key, exc
                )
                self.down = exc

    def _event(self) -> Event:
        """What becomes of the record: see the module's docstring."""
        status = self._status
        error = status >= 500 and not self._rules.store_5xx
        if self._expected is not None and self._size < self._expected:
            return Event.ABANDON
        if status in _SENT_ELSEWHERE or (status >= 400 and self._has(b"retry-after")):
            return Event.RELEASE
        if status in _NOT_DONE or (error and status == 503):
            return Event.FAIL
        return Event.ABANDON if error else Event.COMPLETE

    def _has(self, wanted: bytes) -> bool:
        return any(name.lower() == wanted for name, _ in self._headers)

    async def _record(self, event: Event, result: bytes | None, *, tries: int) -> None:
        """Give the record an end; not cut short by a cancel of the caller."""
        before = self._recording
        recording = own_task(self._write(before, event, result, tries))
        self._recording = recording
        recording.add_done_callback(_seen)
        await asyncio.shield(recording)

    async def _write(self, before: asyncio.Task[None] | None, event: Event, result: bytes | None, tries: int) -> None:
        if before is not None:
            await asyncio.wait({before})
        await self._heartbeat.stop()
        attempt = self._attempt
        try:
            while True:
                tries -= 1
                try:
                    ttl = self._rules.ttl
                    ours = await self._store.finish(attempt.key, attempt.token, event, ttl=ttl, result=result)
                    if not ours and event is Event.COMPLETE:
                        ours = await complete_forgotten(self._store, attempt, ttl=ttl, result=result)
                except StoreError:
                    if not tries:
                        raise
                    await asyncio.sleep(_PAUSE)
                else:
                    break
        finally:
            self._ended()
        if ours:
            self._observer.ended(_ENDS[event], attempt.key, asyncio.get_running_loop().time() - self._since)
        else:
            self._observer.lease_lost(attempt.key)

    async def _release(self) -> None:
        """Let go what was held back. A store that is down takes the answer's place, where that is still possible."""
        held, self._held = self._held, []
        if self.down is None:
            for message in held:
                await self._pass(message)
        elif not self._passed:
            self._passed = self._replaced = True
            not_recorded = problems.problem(problems.STORE_DOWN, _NOT_RECORDED, retry_after=1)
            await self._deliver(lambda: problems.answer(self._send, not_recorded))

    async def _pass(self, message: Message) -> None:
        if self.down is None:
            self._passed = True
            await self._deliver(lambda: self._send(message))

    async def _deliver(self, sending: Callable[[], Awaitable[None]]) -> None:
        """Send to the client, if there still is one."""
        if not self.disconnected:
            try:
                await sending()
            except OSError:
                self.disconnected = True
        if self.disconnected and self._too_large and not self.settled:
            raise OSError("the client has left, and the answer is too large to be kept")


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()

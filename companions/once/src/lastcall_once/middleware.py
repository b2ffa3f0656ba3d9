"""``IdempotencyMiddleware``: at most one execution per ``Idempotency-Key``, and the stored answer for every retry.

Theory of operation
-------------------
A request with a key (draft-ietf-httpapi-idempotency-key-header-07) is identified by its caller, its key and its
fingerprint, for which its body is read first. Then the store decides (``lastcall_once.records``): the request runs
under a lease (``lastcall_once.execution``), or is answered from the record, or gets a problem that says why not.

The handler runs in a task of its own, for which the request's task waits. Who cancels the latter decides what becomes
of the former: a cancel because the client has left is not passed on; any other is, and the record is UNKNOWN at once.
Under lastcall the request's task goes on waiting in the first case, so that a stop knows of the handler; a stop that
has come to disconnecting responses ends it. Where that cannot be (the cancel is repeated, as BaseHTTPMiddleware's is;
another server), the handler is left to itself: a stop of lastcall waits for it as for any tracked task, and else the
application's shutdown ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable
from typing import Any, Protocol

from lastcall_once import problems
from lastcall_once._record import replace
from lastcall_once._types import ASGIApp, Message, Receive, Scope, Send
from lastcall_once.answers import decode
from lastcall_once.callers import ANONYMOUS, API_KEY_HEADERS, SESSION_COOKIES, CallerRules
from lastcall_once.execution import Execution, Rules
from lastcall_once.fingerprint import Body, fingerprint_of, hash_of_caller, parse_key
from lastcall_once.heartbeat import RenewalThread
from lastcall_once.late_acquires import LateAcquireCleanup, release_if_granted
from lastcall_once.looking import look, still_readable
from lastcall_once.lost_workers import marked_unknown, name_of_this_worker
from lastcall_once.metrics import Counters, MemoryCounters, Observer, OnceEvent
from lastcall_once.nesting import around, is_nested, was_entered, within
from lastcall_once.own_task import own_task
from lastcall_once.records import Attempt, Outcome, Policy, Record, State, Verdict
from lastcall_once.store import Store, StoreError
from lastcall_once.store_in_use import StoreInUse

HEADER = b"idempotency-key"
# Extensions by which an answer would go past what is kept of it.
_NOT_OFFERED = frozenset(("http.response.pathsend", "http.response.zerocopysend", "http.response.trailers"))
_OLDER = frozenset(("2.0", "2.1", "2.2", "2.3"))  # versions of ASGI's HTTP in which send() after a disconnect is silent
_NAMESPACE = "http"
_METHOD = re.compile(r"[A-Z-]+")
_CONTEXT = "@"  # in a fingerprint: behind it is the digest of what says whose the key is
_FIRST_POLL = 0.05  # seconds until a waiter looks at another process's record; each further look comes twice as late
_LONGEST_POLL = 1.0
_SHORTEST_HINT, _LONGEST_HINT = 1, 30  # seconds, in a Retry-After: openai's client gives up above 120
_SHUTDOWN_GRACE = 1.0  # seconds that handlers without a client get at the application's shutdown
_DRAIN_POLL = 0.25  # seconds between two looks at the drain, for a handler without a client

logger = logging.getLogger("lastcall.once")

Caller = Callable[[Scope], "str | Awaitable[str | None] | None"]


class _Notice(Protocol):
    """What the middleware asks of a ``DrainNotice``, the extension ``lastcall.drain``."""

    def is_set(self) -> bool: ...
    def remaining(self) -> float | None: ...
    def add_callback(self, function: Callable[[], object]) -> None: ...


class _Refusal(Exception):
    def __init__(self, code: str, detail: str, *, retry_after: int = 0, status: int | None = None) -> None:
        super().__init__(code)
        self.problem = problems.problem(code, detail, retry_after=retry_after, status=status)


class IdempotencyMiddleware:
    """ASGI middleware that runs a request with an ``Idempotency-Key`` once, and answers its retries from the record.

    It may wrap the whole application, or be added to a framework's (``app.add_middleware(IdempotencyMiddleware,
    store="sqlite:///once.db")``), and works under any ASGI server. Requests of other methods or without a key,
    websockets and lifespan pass through. Browsers' scripts see ``Idempotent-Replayed`` only where the application's
    CORS headers name it in ``Access-Control-Expose-Headers``.

    :param store: a :class:`Store`, or the URL of one. It is opened at the application's startup, or by the first
        request with a key where that comes earlier, and closed at its shutdown. One that cannot be opened is tried
        again by each request.
    :param methods: the methods whose keys count, in any case.
    :param required: globs of paths (``*`` crosses ``/``) where a request of these methods must have a key.
    :param optional: globs of paths where it may have one. Elsewhere keys are ignored.
    :param lease: seconds after which work whose process died may be taken over. Renewed while it runs.
    :param ttl: seconds for which a record is kept after the work has ended.
    :param wait: seconds for which a retry waits for work that still runs, to be answered as it was. None: it gets
        409 at once.
    :param caller: ``caller(scope)`` names who sends a request, as a string that stays the same over retries; may be
        ``async``. One caller's keys are not another's. None, for a caller that cannot be told, is refused. Nothing else
        counts then. Default: see :mod:`lastcall_once.callers`. Set it where tokens are renewed between retries. Only a
        hash of it is stored.
    :param api_key_headers: headers that say who sends a request, as ``Authorization`` does.
    :param session_cookies: cookies that do, and have to be the same in all requests with a key. Who sends cookies only
        is refused all the same.
    :param store_5xx: whether a 5xx is an answer to be kept as any other. See :mod:`lastcall_once.execution` for what
        becomes of it by default.
    :param mismatch_status: the status for a key that was used for another request.
    :param canonical_json: whether JSON bodies are the same request when they differ in white space and order only.
    :param max_stored: bytes of body up to which an answer is kept. A retry of a larger one is refused (409).
    :param max_body: bytes of a request's body that are read ahead and compared. Of a larger one the rest is not
        compared, but for the ``Content-Length``.
    :param fail_open: what a store that fails does to a request with a key: let it run unguarded, and its answer go out
        unrecorded (True), or have it answered with 503 (False).
    :param on_unknown: what a retry gets when nobody knows how the work ended: ``retry`` runs it again, ``refuse``
        answers 409 until the record expires or an operator removes it.
    :param on_event: called with a :class:`OnceEvent` for every attempt and every end.
    :param metrics: where figures go; default: :class:`MemoryCounters`, readable as the attribute ``metrics``.
    :param namespace: the beginning of the records' keys. Services that share a store need one each, above all those
        that pass keys on to each other. Guards within each other on one store and namespace are one guard: the inner
        ones pass the request through.

    What the middleware itself answers is problem+json, with the codes of :mod:`lastcall_once.problems`.

    During a drain of lastcall, keys without an answer in the store get 503 before their handler starts, and who waits
    gets it too; what is in the store is still replayed.

    Raises ValueError for options that cannot be used.
    """

    def __init__(  # noqa: PLR0913 - options
        self,
        app: ASGIApp,
        store: Store | str,
        *,
        methods: Iterable[str] = ("POST", "PATCH"),
        required: Iterable[str] = (),
        optional: Iterable[str] = ("*",),
        lease: float = 30.0,
        ttl: float = 86400.0,
        wait: float | None = None,
        caller: Caller | None = None,
        api_key_headers: Iterable[str] = API_KEY_HEADERS,
        session_cookies: Iterable[str] = SESSION_COOKIES,
        store_5xx: bool = False,
        mismatch_status: int = 422,
        canonical_json: bool = False,
        max_stored: int = 1 << 20,
        max_body: int = 1 << 20,
        fail_open: bool = False,
        on_unknown: Policy | str = Policy.RETRY,
        on_event: Callable[[OnceEvent], object] | None = None,
        metrics: Counters | None = None,
        namespace: str = _NAMESPACE,
    ) -> None:
        if not 0 < lease < math.inf or not ttl > 0:
            raise ValueError(f"lease ({lease:g} s) and ttl ({ttl:g} s) have to be longer than nothing")
        if wait is not None and not 0 <= wait < math.inf:
            raise ValueError(f"wait is a number of seconds, or None, not {wait!r}")
        if not 400 <= mismatch_status <= 499:
            raise ValueError(f"mismatch_status is one of a client's error, 400 to 499, not {mismatch_status!r}")
        if max_stored < 0 or max_body < 0:
            raise ValueError("max_stored and max_body are numbers of bytes")
        self.app = app
        self.metrics: Counters = MemoryCounters() if metrics is None else metrics
        self._store = StoreInUse(store)
        self._methods = _methods(methods)
        self._required = _globs("required", required)
        self._optional = _globs("optional", optional)
        self._lease = lease
        self._ttl = ttl
        self._wait = wait
        self._caller = caller
        self._callers = CallerRules(api_key_headers, session_cookies)
        self._mismatch_status = mismatch_status
        self._canonical_json = canonical_json
        self._max_body = max_body
        self._fail_open = fail_open
        self._on_unknown = Policy(on_unknown)
        self._rules = Rules(ttl, max_stored, store_5xx, fail_open)
        self._anonymous_rules = replace(self._rules, keep_cookies=False)
        self._observer = Observer(self.metrics, on_event)
        self._thread = RenewalThread(self._store.store, self._observer)
        self._namespace = namespace
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._detached: set[asyncio.Task[BaseException | None]] = set()
        self._late_acquires = LateAcquireCleanup()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        kind = scope["type"]
        if kind == "http":
            if scope["method"] in self._methods:
                keys = [value for name, value in scope["headers"] if name == HEADER]
                if keys or self._required is not None:
                    await self._with_method(scope, receive, send, keys)
                    return
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def aclose(self) -> None:
        """End handlers that go on without their client, and close the store. The application's shutdown does that."""
        if self._detached:
            _, late = await asyncio.wait(self._detached, timeout=_SHUTDOWN_GRACE)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_SHUTDOWN_GRACE)
        await self._late_acquires.stop()
        await self._thread.stop()
        await self._store.close()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_opening_store() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._store.ready()
                except StoreError as exc:
                    self._observer.warn(
                        "open", "once: the store is not ready, and is tried again by each request: %s", exc
                    )
            return message

        async def send_closing_store(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self.aclose()
            await send(message)

        await self.app(scope, receive_opening_store, send_closing_store)

    # -- one request ---------------------------------------------------------------------------------------------------

    async def _with_method(self, scope: Scope, receive: Receive, send: Send, keys: list[bytes]) -> None:
        path = scope["path"]
        required = self._required is not None and self._required.match(path) is not None
        if required or (keys and self._optional is not None and self._optional.match(path)):
            try:
                if not keys:
                    raise _Refusal(problems.KEY_REQUIRED, "Send an Idempotency-Key, and the same one with each retry.")
                await self._keyed(scope, receive, send, keys)
            except _Refusal as refusal:
                await problems.answer(send, refusal.problem)
        else:
            await self.app(scope, receive, send)

    async def _keyed(self, scope: Scope, receive: Receive, send: Send, keys: list[bytes]) -> None:
        key, context, anonymous = await self._whose(scope, keys)
        body = Body(receive, self._max_body)
        if not await body.read():
            return
        attempt = Attempt(
            key,
            secrets.token_hex(16),
            self._lease,
            self._ttl,
            name_of_this_worker(),
            fingerprint_of(scope, body, canonical_json=self._canonical_json) + context,
            on_unknown=self._on_unknown,
        )
        notice = _notice_of(scope)
        try:
            outcome = await self._decide(attempt, notice)
        except StoreError as exc:
            self._observer.store_error(key, "acquire", exc, fail_open=self._fail_open)
            if not self._fail_open:
                self._observer.warn("acquire", "once: the store failed, and a request was refused for it: %s", exc)
                raise _Refusal(problems.STORE_DOWN, "Nothing was done. Try again.", retry_after=1) from None
            await self.app(scope, body.receive, send)
            return
        if self._is_inner(outcome):
            with within(self, outcome.record.token):
                await self.app(scope, body.receive, send)  # the guard around this one answers for it
            return
        if outcome.verdict is Verdict.GRANTED:
            rules = self._anonymous_rules if anonymous else self._rules
            await self._execute(attempt, rules, scope, body, send, notice)
            return
        answer = decode(outcome.record.result)
        if answer is None or answer.body is None:
            raise _Refusal(
                problems.NOT_REPLAYABLE,
                "Its answer was too large to be kept. Look at its effect; do not repeat it under another key.",
            )
        await (answer.without_cookies() if anonymous else answer).replay(send)

    async def _whose(self, scope: Scope, keys: list[bytes]) -> tuple[str, str, bool]:
        """The record's key, what of its fingerprint says whose it is, and whether it is anybody's. Raises _Refusal."""
        try:
            key = parse_key(keys)
        except ValueError as exc:
            raise _Refusal(problems.KEY_INVALID, str(exc)) from None
        if self._caller is not None:
            named = self._caller(scope)
            named = await named if isawaitable(named) else named
            caller = None if named is None else hash_of_caller(named)
        else:
            caller = self._callers.caller_of(scope)
        if caller is None:
            raise _Refusal(
                problems.CALLER_UNKNOWN,
                "The request has no Authorization header and no API key. One caller must never get the answer of "
                "another, so that the service has to be told how to tell callers apart (caller=).",
            )
        record = f"{self._namespace}:{caller}:{key}"
        if self._caller is not None:
            return record, "", False
        return record, _CONTEXT + self._callers.context_of(scope, record), caller == ANONYMOUS

    # -- the decision --------------------------------------------------------------------------------------------------

    async def _decide(self, attempt: Attempt, notice: _Notice | None) -> Outcome:
        """GRANTED, or DONE with a record, or refused by a lease around this. Raises _Refusal and StoreError."""
        now = asyncio.get_running_loop().time
        began = now()
        await self._store.ready()
        draining = _draining(notice)
        ask = self._look if draining else self._ask
        outcome = await ask(attempt)
        if self._is_inner(outcome):
            return outcome
        if unnoted := _has_no_context(outcome, attempt):
            attempt = replace(attempt, fingerprint=outcome.record.fingerprint)
            outcome = await ask(attempt)
        took = now() - began
        running = max(outcome.record.updated_at - outcome.record.first_seen_at, 0.0)
        if outcome.verdict is Verdict.IN_FLIGHT and self._wait is not None:
            if not draining:
                outcome = await self._wait_for(attempt, notice, now() + self._wait)
            if outcome.verdict is Verdict.IN_FLIGHT and _draining(notice):
                raise _no_new_work()
        if outcome.verdict is Verdict.GRANTED and outcome.record.token != attempt.token:
            raise _no_new_work()
        self._observer.took("acquire", took)
        self._observer.attempt(attempt.key, outcome, took)
        if outcome.verdict is Verdict.IN_FLIGHT:
            # As long again as it has taken so far: work that takes long is not asked for all the time, and no client's
            # retries are over before it is. Some do not retry at all where they are told to wait for minutes.
            hint = math.ceil(min(running + now() - began, _LONGEST_HINT))
            raise _Refusal(
                problems.IN_FLIGHT, "Try again in a moment, with the same key.", retry_after=max(hint, _SHORTEST_HINT)
            )
        if outcome.verdict is Verdict.MISMATCH:
            raise self._mismatch(attempt, outcome.record)
        if unnoted and outcome.verdict is Verdict.DONE:
            raise _Refusal(
                problems.OTHER_CALLER, "Its record does not say whose it is: an earlier release has written it."
            )
        if outcome.verdict is Verdict.UNKNOWN:
            raise _Refusal(problems.UNKNOWN, "It was cut short. Look whether it had its effect before you repeat it.")
        return outcome

    def _is_inner(self, outcome: Outcome) -> bool:
        """Whether another guard around this one has the key's lease."""
        return is_nested(outcome, around()) and not was_entered(self, outcome.record.token)

    def _mismatch(self, attempt: Attempt, record: Record) -> _Refusal:
        """Why a request is not the one that its key was used for."""
        if record.state is State.LEASED and self._namespace == _NAMESPACE:
            self._observer.warn(
                "namespace",
                "once: a key came with another request while its first one runs (key %r). Services that share a store "
                "and pass keys on to each other need a namespace= each",
                attempt.key,
            )
        _, _, ours = attempt.fingerprint.partition(_CONTEXT)
        _, noted, theirs = record.fingerprint.partition(_CONTEXT)
        if noted and ours != theirs:
            # Nothing is said about the request: it is none of this caller's.
            return _Refusal(
                problems.OTHER_CALLER,
                "The host or the session cookie differ from those of the first request with this key.",
            )
        return _Refusal(
            problems.MISMATCH,
            "The method, path, query or body differ from those of the first request with this key.",
            status=self._mismatch_status,
        )

    async def _look(self, attempt: Attempt) -> Outcome:
        return await look(self._store.store, attempt)

    async def _ask(self, attempt: Attempt) -> Outcome:
        """Make the attempt; where the store takes nothing, see what it has."""
        try:
            return await self._acquire(attempt)
        except StoreError:
            found = await still_readable(self._store.store, attempt)
            if found is None:
                raise
            return found

    async def _acquire(self, attempt: Attempt) -> Outcome:
        """Make the attempt. One that the caller's cancel, or the store's failure, overtakes gives back what it got."""
        acquiring = own_task(self._acquire_from_living(attempt))
        try:
            return await asyncio.shield(acquiring)
        except StoreError:
            if not self._fail_open:
                self._late_acquires.start(self._store.store, attempt)
            raise
        except asyncio.CancelledError:
            with contextlib.suppress(StoreError):
                await acquiring  # as long as the store's timeout at most
                await release_if_granted(self._store.store, attempt)
            raise

    async def _acquire_from_living(self, attempt: Attempt) -> Outcome:
        store = self._store.store
        outcome = await store.acquire(attempt)
        if await marked_unknown(store, attempt, outcome):
            outcome = await store.acquire(attempt)
        return outcome

    async def _wait_for(self, attempt: Attempt, notice: _Notice | None, until: float) -> Outcome:
        """Wait for the work of another to end; the outcome is IN_FLIGHT still if the time, or the drain, is first."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        waiting = self._waiting.setdefault(attempt.key, set())
        waiting.add(woken)
        if notice is not None:
            notice.add_callback(woken.set)
        pause = _FIRST_POLL
        try:
            while True:
                woken.clear()  # before the look: an end that comes behind it wakes
                outcome = await self._look(attempt)
                lost = await marked_unknown(self._store.store, attempt, outcome)
                if (lost or outcome.verdict is Verdict.GRANTED) and not _draining(notice):
                    outcome = await self._acquire(attempt)
                left = until - loop.time()
                if outcome.verdict is not Verdict.IN_FLIGHT or left <= 0 or _draining(notice):
                    return outcome
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(pause, left)):
                        await woken.wait()
                pause = min(2 * pause, _LONGEST_POLL)
        finally:
            waiting.discard(woken)
            if not waiting and self._waiting.get(attempt.key) is waiting:
                del self._waiting[attempt.key]

    def _wake(self, key: str) -> None:
        for woken in self._waiting.get(key, ()):
            woken.set()

    # -- the execution -------------------------------------------------------------------------------------------------

    async def _execute(
        self, attempt: Attempt, rules: Rules, scope: Scope, body: Body, send: Send, notice: _Notice | None
    ) -> None:
        extensions = scope.get("extensions")
        if extensions and not _NOT_OFFERED.isdisjoint(extensions):
            scope["extensions"] = {name: value for name, value in extensions.items() if name not in _NOT_OFFERED}
        scope["asgi"] = _with_errors_from_send(scope.get("asgi") or {})
        key = attempt.key
        execution = Execution(
            self._store.store,
            attempt,
            rules,
            self._observer,
            thread=self._thread,
            body=body,
            send=send,
            ended=lambda: self._wake(key),
        )
        with within(self, attempt.token):  # and so is the task, which inherits it
            task = own_task(execution.run(self.app, scope), name=f"once {key}")
        if await self._wait_for_handler(task, execution, notice):
            raise asyncio.CancelledError
        error = task.result()
        if error is not None:
            raise error

    async def _wait_for_handler(
        self, task: asyncio.Task[BaseException | None], execution: Execution, notice: _Notice | None
    ) -> bool:
        """Wait for the handler; True if it was cancelled, by an order that nobody has raised yet."""
        detached = False  # the client has left, and the handler goes on
        while not task.done():
            try:
                await asyncio.wait({task}, timeout=_DRAIN_POLL if detached else None)
            except asyncio.CancelledError:
                if not await execution.client_has_left() or _is_over(notice):
                    await self._cut_short(task, execution)
                    raise
                if detached or notice is None:
                    self._leave_to_itself(task, notice)
                    raise
                detached = True
                current = asyncio.current_task()
                if current is not None:
                    current.uncancel()
            else:
                if detached and not task.done() and _is_over(notice):
                    await self._cut_short(task, execution)
                    return True
        return False

    def _leave_to_itself(self, task: asyncio.Task[BaseException | None], notice: _Notice | None) -> None:
        """Nobody waits for the handler any more, but a stop of lastcall does, and the application's shutdown."""
        self._detached.add(task)
        task.add_done_callback(self._on_detached_done)
        track: Callable[[asyncio.Task[Any]], object] | None = getattr(notice, "track", None)
        if track is not None:  # an older lastcall has none
            track(task)

    def _on_detached_done(self, task: asyncio.Task[BaseException | None]) -> None:
        """Log what the handler raised: nobody waits for it."""
        self._detached.discard(task)
        error = None if task.cancelled() else task.exception() or task.result()
        if error is not None and not isinstance(error, asyncio.CancelledError):
            logger.error("once: a handler failed that had gone on without its client", exc_info=error)

    async def _cut_short(self, task: asyncio.Task[BaseException | None], execution: Execution) -> None:
        """Pass a cancel on: the record is UNKNOWN at once, whatever the handler makes of it."""
        task.cancel()
        await execution.abandon()
        await asyncio.wait({task})


def _has_no_context(outcome: Outcome, attempt: Attempt) -> bool:
    """Whether the record is of this request, and does not say whose it was, as those before lastcall-once 0.1 do not.

    What is under way there, or has failed, is answered as ever; what is done must not be replayed.
    """
    request, noted, _ = attempt.fingerprint.partition(_CONTEXT)
    return bool(noted) and outcome.verdict is Verdict.MISMATCH and outcome.record.fingerprint == request


def _strings(name: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str):
        raise ValueError(f"{name} is several strings, not one: ({values!r},)")
    return list(values)


def _methods(names: Iterable[str]) -> frozenset[str]:
    """In upper case, as all methods are that are registered; servers hand them over so (ASGI)."""
    found = frozenset(name.upper() for name in _strings("methods", names))
    if not found or not all(_METHOD.fullmatch(name) for name in found):
        raise ValueError(f"methods are names like 'POST', at least one: {sorted(found)!r}")
    return found


def _globs(name: str, patterns: Iterable[str]) -> re.Pattern[str] | None:
    """One expression for all patterns; None for none of them."""
    found = [fnmatch.translate(pattern) for pattern in _strings(name, patterns)]
    return re.compile("|".join(found)) if found else None


def _with_errors_from_send(asgi: dict[str, Any]) -> dict[str, Any]:
    """Say that ``send()`` raises OSError where nobody listens, as it does here (ASGI's HTTP 2.4).

    Under older servers, frameworks watch ``receive()`` and end a stream whose client has left: here it is to go on.
    """
    version = str(asgi.get("spec_version", "2.0"))
    return asgi if version not in _OLDER else {**asgi, "spec_version": "2.4"}


def _notice_of(scope: Scope) -> _Notice | None:
    drain: dict[str, Any] | None = (scope.get("extensions") or {}).get("lastcall.drain")
    return None if drain is None else drain.get("notice")


def _draining(notice: _Notice | None) -> bool:
    return notice is not None and notice.is_set()


def _is_over(notice: _Notice | None) -> bool:
    """Whether the server's drain has come to disconnecting this response."""
    if notice is None or not notice.is_set():
        return False
    left = notice.remaining()
    return left is not None and left <= 0


def _no_new_work() -> _Refusal:
    return _Refusal(problems.DRAINING, "Nothing was done. Try again, with the same key.", retry_after=1)

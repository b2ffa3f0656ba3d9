"""``Service``: the ASGI application. Finds the route, tells who asks, checks what is asked, and answers."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from lastcall_once._types import Message, Receive, Scope, Send
from lastcall_once.document_stores import document_store_of
from lastcall_once.documents import DocumentStore
from lastcall_once.guard import AsyncOnce
from lastcall_once.service import openapi
from lastcall_once.service.core import LARGEST, Answer, Call, Core, Settings
from lastcall_once.service.faults import Fault
from lastcall_once.service.keys import KeyRing
from lastcall_once.service.routes import Found, Route, Router, path_validator
from lastcall_once.service.validators import Enumeration, Integer, Invalid, Object
from lastcall_once.store import Store, StoreError

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_DIGITS = re.compile(r"-?[0-9]{1,18}")
_MOST_PARAMETERS = 50
_OPENAPI = b"/openapi.json"


class Service:
    """The HTTP service over ``store`` (a store, or its URL), an ASGI 3 application.

    The store is opened at startup, which fails if it cannot be, and closed at shutdown. Several processes may serve one
    store. ``clock`` gives the time in seconds since 1970, for windows and for what is told of leases; leases themselves
    end by the store's clock.

    Raises ValueError for a URL that cannot be read, ImportError where a store's package is missing, TypeError for a
    store without a document store.
    """

    def __init__(
        self, store: Store | str, settings: Settings | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        settings = Settings() if settings is None else settings
        self.once = AsyncOnce(store, lease=float(settings.lease), ttl=float(settings.ttl))
        self.documents: DocumentStore = document_store_of(self.once.store)
        self._core = Core(self.once, self.documents, settings)
        self._keys = KeyRing(self.documents, clock=time.monotonic)
        self._router = Router()
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def open(self) -> None:
        """Open the store. Raises StoreError."""
        await self.once.open()

    async def close(self) -> None:
        """Store what is left of the statistics, and close the store."""
        await self._core.flush()
        await self.once.close()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.open()
        except StoreError as exc:
            await send({"type": "lifespan.startup.failed", "message": f"the store of once: {exc}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        with contextlib.suppress(StoreError):
            await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(scope, receive)
        except Fault as exc:
            answer = _error_answer(exc)
        except Invalid as exc:
            errors = [{"field": exc.field, "expected": exc.expected}]
            answer = _error_answer(Fault("invalid_request", str(exc), errors=errors))
        except StoreError as exc:
            self.once.observer.warn("service", "once: the store failed, and a request was refused for it: %s", exc)
            answer = _error_answer(Fault("store_unavailable"))
        if answer is not None:
            await _send(send, answer, _request_id(scope), head=scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | None:
        """The response; None if the client has left before it had asked. Raises Fault, Invalid, StoreError."""
        path = _raw_path(scope)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if path == _OPENAPI:
            _only(method, ("GET",))
            return Answer(openapi.document())
        found = self._router.find(path)
        if found is None:
            raise Fault("not_found", "There is no such path; /openapi.json has those that there are.")
        _only(method, tuple(found.routes))
        route = found.routes[method]
        await self.once.open()
        key = await self._keys.bearer([value for name, value in scope["headers"] if name == b"authorization"])
        values, query = _values(found), _query(route, scope.get("query_string", b""))
        body = None
        if route.body is not None:
            _check_type(scope)
            raw = await _body(scope, receive)
            if raw is None:
                return None
            body = _parsed(route, raw)
        return await route.handler(
            Call(
                core=self._core,
                key=key,
                path=values,
                query=query,
                body=body,
                now=self._clock(),
                draining=_draining(scope),
            )
        )


def _error_answer(fault: Fault) -> Answer:
    return Answer(fault.body, fault.status, fault.headers)


def _raw_path(scope: Scope) -> bytes:
    """The path as it was sent, below the application's root."""
    raw: bytes | None = scope.get("raw_path")
    path = scope["path"].encode("utf-8", "surrogateescape") if raw is None else raw.partition(b"?")[0]
    root = scope.get("root_path", "").rstrip("/").encode()
    return path[len(root) :] if root and path.startswith(root + b"/") else path


def _only(method: str, allowed: tuple[str, ...]) -> None:
    if method not in allowed:
        names = [*allowed, "HEAD"] if "GET" in allowed else allowed
        raise Fault("method_not_allowed", headers=((b"allow", ", ".join(names).encode()),))


def _values(found: Found) -> Mapping[str, str]:
    return {name: path_validator(name).check(value, name) for name, value in found.values.items()}


def _query(route: Route, raw: bytes) -> Mapping[str, Any]:
    """The parameters, checked. Of one that is there twice the last counts; one that is not known is refused."""
    shape = route.query
    given: dict[str, Any] = {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError:  # UnicodeDecodeError is one
        raise Invalid("the query", f"at most {_MOST_PARAMETERS} parameters, in UTF-8, percent-encoded") from None
    for name, value in pairs:
        number = isinstance(shape.fields.get(name), Integer) and _DIGITS.fullmatch(value) is not None
        given[name] = int(value) if number else value
    return {**_defaults(shape), **shape.check(given, "")}


def _defaults(shape: Object) -> dict[str, Any]:
    validators = shape.fields.items()
    found = {name: validator.default for name, validator in validators if isinstance(validator, Integer | Enumeration)}
    if "scope_id" in shape.fields:
        found["scope_id"] = "global"
    return {name: default for name, default in found.items() if default is not None}


def _check_type(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name == b"content-type" and value.partition(b";")[0].strip().lower() != b"application/json":
            raise Fault("unsupported_media_type")


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The request's body; None if the client leaves before its end."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > LARGEST:
            raise Fault("too_large")
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise Fault("too_large")
        if not message.get("more_body", False):
            return b"".join(parts)


def _parsed(route: Route, raw: bytes) -> Any:
    if route.body is None or (not raw and route.body_optional):
        return None
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise Fault("invalid_json", f"The body is no JSON text in UTF-8: {_reason(exc)}.") from None
    return route.body.check(value, "")


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value


def _reason(exc: Exception) -> str:
    if isinstance(exc, UnicodeDecodeError):
        return "it is not UTF-8"
    return "it is nested too deep" if isinstance(exc, RecursionError) else str(exc)[:200]


def _draining(scope: Scope) -> bool:
    """Whether lastcall is about to stop (its extension ``lastcall.drain``)."""
    drain = (scope.get("extensions") or {}).get("lastcall.drain")
    notice = None if drain is None else drain.get("notice")
    return notice is not None and bool(notice.is_set())


def _request_id(scope: Scope) -> bytes:
    """The client's ``X-Request-Id``, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return secrets.token_hex(8).encode()


async def _send(send: Send, answer: Answer, request_id: bytes, *, head: bool) -> None:
    body = json.dumps(answer.body, separators=(",", ":")).encode()
    start: Message = {
        "type": "http.response.start",
        "status": answer.status,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id),
            *answer.headers,
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": b"" if head else body})

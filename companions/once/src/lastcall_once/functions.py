"""What ``guard`` makes of a function: its key from a template, and the call within a lease."""

from __future__ import annotations

import functools
import inspect
import json
import string
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, TypeVar

from lastcall_once.errors import LeaseLost
from lastcall_once.nesting import was_entered, within
from lastcall_once.records import Record

T = TypeVar("T")


class Attempted(Protocol):
    """What both leases have."""

    @property
    def granted(self) -> bool:
        """Whether to do the work."""

    @property
    def nested(self) -> bool:
        """Whether a guard around this code holds the key."""

    @property
    def record(self) -> Record | None:
        """The record after the attempt."""

    @property
    def key(self) -> str:
        """The key."""

    @property
    def token(self) -> str:
        """What names the lease."""

    def replay(self) -> Any:
        """The stored result, or an exception."""


class AsyncLease(Attempted, Protocol):
    """A lease of an async function."""

    def complete(self, result: object = None) -> Awaitable[None]:
        """Store the result."""

    async def __aenter__(self) -> AsyncLease: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BlockingLease(Attempted, Protocol):
    """A lease of a function that blocks."""

    def complete(self, result: object = None) -> None:
        """Store the result."""

    def __enter__(self) -> BlockingLease: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def key_maker(function: Callable[..., object], key: str | Callable[..., str]) -> Callable[..., str]:
    """A function from the arguments of ``function`` to the key. Raises ValueError for a template that does not fit."""
    if callable(key):
        return key
    template = key
    signature = inspect.signature(function)
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    for _, field, _, _ in string.Formatter().parse(template):
        if field is None:
            continue
        name = field.partition(".")[0].partition("[")[0]
        if not name.isidentifier() or (name not in signature.parameters and not anything):
            raise ValueError(f"the key {template!r} names {name!r}, which is no argument of {function.__qualname__}()")

    def make(*args: Any, **kwargs: Any) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = dict(bound.arguments)
        for parameter in signature.parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                values = {**values.pop(parameter.name), **values}
        try:
            return template.format(**values)
        except (KeyError, AttributeError, IndexError) as exc:
            raise ValueError(f"the key {template!r} cannot be made of these arguments: {exc!r}") from exc

    return make


def guard_async(
    function: Callable[..., Awaitable[T]], key: str | Callable[..., str], lease: Callable[[str], AsyncLease]
) -> Callable[..., Coroutine[Any, Any, T]]:
    """``function`` within leases. Raises TypeError for one that is not async."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{_named(function)} is no async function: decorate it with the guard() of lastcall_once.Once")
    make_key = key_maker(function, key)

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> T:
        async with lease(make_key(*args, **kwargs)) as held:
            if (around := _passes_through(held, guarded)) is not None:
                with within(guarded, around):
                    return await function(*args, **kwargs)
            if not held.granted:
                replayed: T = held.replay()
                return replayed
            with within(guarded, held.token):
                value = await function(*args, **kwargs)
            with suppress(LeaseLost):  # it is logged and counted; the work is done, and this is its result
                result = _stored(value)
                await held.complete(result)
            return _checked(value, result, function)

    return guarded


def guard_blocking(
    function: Callable[..., T], key: str | Callable[..., str], lease: Callable[[str], BlockingLease]
) -> Callable[..., T]:
    """``function`` within leases. Raises TypeError for a generator, which has no one result."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{_named(function)} is a generator: guard() wants a function with one result")
    make_key = key_maker(function, key)

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> T:
        with lease(make_key(*args, **kwargs)) as held:
            if (around := _passes_through(held, guarded)) is not None:
                with within(guarded, around):
                    return function(*args, **kwargs)
            if not held.granted:
                replayed: T = held.replay()
                return replayed
            with within(guarded, held.token):
                value = function(*args, **kwargs)
            with suppress(LeaseLost):
                result = _stored(value)
                held.complete(result)
            return _checked(value, result, function)

    return guarded


def _passes_through(held: Attempted, guarded: object) -> str | None:
    """The lease around this call that another guard holds; None if there is none."""
    if held.nested and held.record is not None and not was_entered(guarded, held.record.token):
        return held.record.token
    return None


def _stored(value: object) -> bytes | None:
    """The value as JSON, or None if it is none."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _checked(value: T, result: bytes | None, function: Callable[..., object]) -> T:
    if result is None:
        raise TypeError(
            f"{_named(function)} returned {type(value).__name__}, which is no JSON: the work is done and counts as "
            "done, but a retry cannot be given its result"
        )
    return value


def _named(function: Callable[..., object]) -> str:
    return f"{getattr(function, '__qualname__', function)}()"

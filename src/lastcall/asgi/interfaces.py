"""Which interface an application speaks, told from its signature, and the adapter for ASGI 2.

ASGI 3 is called once, ``await app(scope, receive, send)``; ASGI 2 twice, ``await app(scope)(receive, send)``; WSGI is
``app(environ, start_response)``. Nothing marks which one a callable means, so :func:`shape_of` looks at what it can be
called with. The rules are those of ``asgiref.compatibility.is_double_callable``, with one addition: asgiref calls
every callable that is no coroutine function a double one, we only those that take one positional argument. So a plain
function that takes three and returns an awaitable counts as what it is.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, NamedTuple, TypeGuard

from lastcall.base.types import Receive, Scope, Send

ASGI2App = Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]


class Shape(Enum):
    """What an object looks like from outside."""

    ASGI3 = "asgi3"
    ASGI2 = "asgi2"
    WSGI = "wsgi"
    FACTORY = "factory"
    """It can be called with nothing, and not (or not sensibly) with a scope."""
    CLASS = "class"
    """A class whose *instances* are applications."""
    MISFIT = "misfit"
    """It can be called in none of these ways."""


class Arity(NamedTuple):
    """How many positional arguments a callable needs (``required``) and takes (``most``, inf with ``*args``)."""

    required: int
    most: float

    def takes(self, count: int) -> bool:
        """Say whether a call with ``count`` positional arguments can be bound."""
        return self.required <= count <= self.most


def arity_of(obj: Callable[..., Any]) -> Arity | None:
    """Return the arity of ``obj`` as it is called (without ``self``), or None if it has no readable signature.

    Partial objects and functions decorated with ``functools.wraps`` are seen through.
    """
    try:
        parameters = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    unbounded = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    required = sum(p.default is p.empty for p in positional)
    return Arity(required, math.inf if unbounded else len(positional))


def is_coroutine_callable(obj: object) -> bool:
    """Say whether calling ``obj`` runs an ``async def``: a function, a partial of one, or an ``__call__``."""
    while isinstance(obj, functools.partial):
        obj = obj.func
    if inspect.isclass(obj):
        return False
    return inspect.iscoroutinefunction(obj) or (callable(obj) and inspect.iscoroutinefunction(type(obj).__call__))


def yields(obj: object) -> bool:
    """Say whether calling ``obj`` makes an async generator, or a context manager of contextlib's: for nobody to await.

    Other decorators may make an application of a function that yields, and are not looked through.
    """
    while isinstance(obj, functools.partial):
        obj = obj.func
    if inspect.isclass(obj):
        return False
    called = obj if inspect.isroutine(obj) else _defined(type(obj), "__call__")
    code = getattr(called, "__code__", None)
    return inspect.isasyncgenfunction(called) or (code is not None and code.co_filename == contextlib.__file__)


def is_context_manager(obj: object) -> bool:
    """Say whether ``obj`` is what a function decorated with ``contextmanager`` or ``asynccontextmanager`` returns.

    It can be called, but as a decorator. An application that is a context manager too has a ``__call__`` of its own.
    """
    call = _defined(type(obj), "__call__")
    return call in (contextlib.ContextDecorator.__call__, contextlib.AsyncContextDecorator.__call__)


def shape_of(obj: Callable[..., Any]) -> Shape:
    """Tell what ``obj`` looks like. A callable that cannot be inspected, or takes ``*args``, counts as ASGI 3."""
    if inspect.isclass(obj):
        return _shape_of_class(obj)
    if is_context_manager(obj) or yields(obj):
        return Shape.MISFIT
    arity = arity_of(obj)
    if arity is None or arity.most == math.inf:
        return Shape.ASGI3
    if arity.required == 0 and (inspect.isfunction(obj) or not arity.takes(3)):
        return Shape.FACTORY
    if arity.takes(3):
        return Shape.ASGI3
    if is_coroutine_callable(obj):
        return Shape.MISFIT
    if arity.required == 1:
        return Shape.ASGI2
    return Shape.WSGI if arity.takes(2) else Shape.MISFIT


def is_double_callable(obj: Callable[..., Any]) -> TypeGuard[ASGI2App]:
    """Say whether ``obj`` is an ASGI 2 application: called with the scope, then with receive and send."""
    return shape_of(obj) is Shape.ASGI2


def _shape_of_class(cls: type) -> Shape:
    """A class is ASGI 2 (made with the scope, its instance called), unless its methods say that it cannot be."""
    made = arity_of(cls)
    call = _defined(cls, "__call__")
    if call is None:
        # Awaiting the instance is an ASGI 3 application as well: class Endpoint(scope, receive, send) with __await__.
        awaited = _defined(cls, "__await__") is not None and (made is None or made.takes(3))
        return Shape.ASGI3 if awaited else Shape.MISFIT
    called = arity_of(call) if inspect.isfunction(call) else None
    # Seen from the class the method still has its ``self``: three arguments for the application are four here.
    if called is not None and called.takes(4) and called.most != math.inf:
        return Shape.CLASS
    return Shape.ASGI2 if made is None or made.takes(1) else Shape.CLASS


def _defined(cls: type, name: str) -> object:
    """Look a method up on the class's own bases; plain ``getattr`` would find the metaclass's ``__call__``."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


class ASGI2Adapter:
    """An ASGI 3 single callable around an ASGI 2 double callable.

    The application gets a copy of the scope with ``asgi["version"]`` "2.0"; ``state`` is the same object.
    """

    def __init__(self, app: ASGI2App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make the instance for this scope, then run it."""
        instance = self.app({**scope, "asgi": {**scope["asgi"], "version": "2.0"}})
        await instance(receive, send)

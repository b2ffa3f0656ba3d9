"""``lastcall.once``: at most one execution per key. Works under any ASGI server, and without one.

"Exactly once" is not on offer: the side effect and its record are two systems. The promise is: at most one execution
per lease, and the stored answer for every retry after it.

Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lastcall.once.errors import InFlight, LeaseLost, NotReplayable, OnceError, Refused
    from lastcall.once.guard import AsyncOnce, CheckLock, Lease
    from lastcall.once.middleware import IdempotencyMiddleware
    from lastcall.once.records import Policy
    from lastcall.once.store import StoreError
    from lastcall.once.sync import Once

__all__ = [
    "AsyncOnce",
    "CheckLock",
    "IdempotencyMiddleware",
    "InFlight",
    "Lease",
    "LeaseLost",
    "NotReplayable",
    "Once",
    "OnceError",
    "Policy",
    "Refused",
    "StoreError",
]

_HOMES = {
    "AsyncOnce": "lastcall.once.guard",
    "CheckLock": "lastcall.once.guard",
    "IdempotencyMiddleware": "lastcall.once.middleware",
    "InFlight": "lastcall.once.errors",
    "Lease": "lastcall.once.guard",
    "LeaseLost": "lastcall.once.errors",
    "NotReplayable": "lastcall.once.errors",
    "Once": "lastcall.once.sync",
    "OnceError": "lastcall.once.errors",
    "Policy": "lastcall.once.records",
    "Refused": "lastcall.once.errors",
    "StoreError": "lastcall.once.store",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""``lastcall_once``: at most one execution per key. Works under any ASGI server, and without one.

"Exactly once" is not on offer: the side effect and its record are two systems. The promise is: at most one execution
per lease, and the stored answer for every retry after it.

Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lastcall_once.errors import InFlight, LeaseLost, NotReplayable, OnceError, Refused
    from lastcall_once.guard import AsyncOnce, CheckLock, Lease
    from lastcall_once.middleware import IdempotencyMiddleware
    from lastcall_once.records import Policy
    from lastcall_once.store import StoreError
    from lastcall_once.sync import Once

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
    "AsyncOnce": "lastcall_once.guard",
    "CheckLock": "lastcall_once.guard",
    "IdempotencyMiddleware": "lastcall_once.middleware",
    "InFlight": "lastcall_once.errors",
    "Lease": "lastcall_once.guard",
    "LeaseLost": "lastcall_once.errors",
    "NotReplayable": "lastcall_once.errors",
    "Once": "lastcall_once.sync",
    "OnceError": "lastcall_once.errors",
    "Policy": "lastcall_once.records",
    "Refused": "lastcall_once.errors",
    "StoreError": "lastcall_once.store",
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

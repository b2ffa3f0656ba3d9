"""lastcall: an ASGI server that stops well, and a fast one.

    lastcall module:app

or, in Python, ``lastcall.run("module:app")``. Names are imported when they are first used, so that ``import lastcall``
costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lastcall._version import __version__

if TYPE_CHECKING:
    from lastcall.base.errors import ClientDisconnected
    from lastcall.base.lost_workers import lost_workers
    from lastcall.cli.run import run
    from lastcall.config import Config
    from lastcall.notice.notice import DrainNotice, drain_notice
    from lastcall.notice.tracking import track
    from lastcall.server import Server, StopReport

__all__ = [
    "ClientDisconnected",
    "Config",
    "DrainNotice",
    "Server",
    "StopReport",
    "__version__",
    "drain_notice",
    "lost_workers",
    "run",
    "track",
]

_HOMES = {
    "ClientDisconnected": "lastcall.base.errors",
    "Config": "lastcall.config",
    "DrainNotice": "lastcall.notice.notice",
    "Server": "lastcall.server",
    "StopReport": "lastcall.server",
    "drain_notice": "lastcall.notice.notice",
    "lost_workers": "lastcall.base.lost_workers",
    "run": "lastcall.cli.run",
    "track": "lastcall.notice.tracking",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(home)
    if name in ("drain_notice", "track"):
        import_module("lastcall.notice.notice").want()
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The application as ``lastcall once serve`` runs it: made in each worker, from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from lastcall_once.service.app import Service
from lastcall_once.service.core import Settings
from lastcall_once.service.locks import policy_named

FACTORY: Final = "lastcall_once.service.factory:make"
"""The import string of ``make``, for servers."""

STORE: Final = "LASTCALL_ONCE_STORE"
LEASE: Final = "LASTCALL_ONCE_LEASE"
TTL: Final = "LASTCALL_ONCE_TTL"
DEDUP_WINDOW: Final = "LASTCALL_ONCE_DEDUP_WINDOW"
ON_FAILED: Final = "LASTCALL_ONCE_ON_FAILED"


def make() -> Service:
    """The service over the store of ``LASTCALL_ONCE_STORE``. Raises ValueError for variables that cannot be read."""
    return Service(os.environ.get(STORE, "sqlite:///once.db"), settings_of(os.environ))


def settings_of(environ: Mapping[str, str]) -> Settings:
    """The settings that variables say. Raises ValueError."""
    default = Settings()
    return Settings(
        lease=int(environ.get(LEASE, default.lease)),
        ttl=int(environ.get(TTL, default.ttl)),
        dedup_window=int(environ.get(DEDUP_WINDOW, default.dedup_window)),
        on_failed=policy_named(environ.get(ON_FAILED, "replay")),
    )

"""Says which of some modules, slow to import, a plain start has brought, and has a cycle that only the collector ends."""

from __future__ import annotations

import sys
from typing import Any

from behaviours import app

__all__ = ["app"]

SLOW = {
    "configparser",
    "dataclasses",
    "difflib",
    "email.utils",
    "encodings.idna",
    "json",
    "logging.config",
    "platform",
    "random",
    "urllib.parse",
    "lastcall.asgi.wsgi",
    "lastcall.config.keywords",
    "lastcall.net.portable",
    "lastcall.observe.custom",
}

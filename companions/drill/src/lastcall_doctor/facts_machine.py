"""Looks at the machine and the Python that the doctor itself runs on."""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

from lastcall_doctor.facts import Machine
from lastcall_doctor.launch import debug_asked_for

SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")
MODULES: Final = ("lastcall.asgi.cycle", "lastcall.connection.http1", "lastcall.notice.running", "lastcall.wire.http1")
REACTOR: Final = ("lastcall.net.loop", "lastcall.net.reactor")


def look() -> Machine:
    """The limits and the interpreter of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    native = sys.platform.startswith("linux")
    modules = (*MODULES, *(REACTOR if native else ())) if importlib.util.find_spec("lastcall") else ()
    return Machine(
        nofile=float("inf") if soft == resource.RLIM_INFINITY else soft,
        somaxconn=_somaxconn(),
        debug=_debug(),
        missing_modules=tuple(name for name in modules if not compiled(name)),
        native=native,
    )


def compiled(module: str) -> bool:
    """Whether ``module`` would be loaded from an extension. It is not imported, only the package around it is."""
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return False
    return spec is not None and spec.origin is not None and spec.origin.endswith(tuple(EXTENSION_SUFFIXES))


def _somaxconn() -> int | None:
    try:
        return int(SOMAXCONN.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _debug() -> str:
    if sys.flags.dev_mode:
        return "-X dev"
    if sysconfig.get_config_var("Py_DEBUG"):
        return "a debug build of Python"
    return debug_asked_for((), os.environ)

"""Variables: those of the table, and those that look as if somebody had meant one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from lastcall.config.option import ENV_PREFIX
from lastcall.config.options import OPTIONS
from lastcall.config.resolve import did_you_mean

_UVICORN: Final = "UVICORN_"
_OTHERS: Final = re.compile(
    # The application's, those of the companions, of builds and tests, and of what starts workers.
    r"APP|(ONCE|DRILL|SOAK)_.*|LINETRACE|SANITIZE|UPGRADE|WORKER_ID"
    # Kubernetes sets these in every pod of a namespace that has a service called lastcall.
    r"|SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?"
)


def unread_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable that the command does not read although its name says that it is meant for it.

    Values are not mentioned: they may be secrets.
    """
    known = {option.env for option in OPTIONS.values() if option.env is not None}
    warnings = []
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            if name not in known and not _OTHERS.fullmatch(name.removeprefix(ENV_PREFIX)):
                warnings.append(f"{name} is not read: no option has this variable{did_you_mean(name, known)}")
        elif name.startswith(_UVICORN):
            ours = ENV_PREFIX + name.removeprefix(_UVICORN)
            instead = f"; lastcall's is {ours}" if ours in known or ours == f"{ENV_PREFIX}APP" else ""
            warnings.append(f"{name} is not read: it is a variable of uvicorn{instead}")
    return warnings

"""A resolver that takes its time, as one whose name servers do not answer does. ``SWALLOWS``: it takes exceptions."""

from __future__ import annotations

import os
import socket
import time
from typing import Any


def slow(*_arguments: Any, **_options: Any) -> list[Any]:
    try:
        os.write(1, b"resolving\n")
        time.sleep(1000)
    except KeyboardInterrupt as exc:
        if "SWALLOWS" in os.environ:
            raise OSError("interrupted") from exc
        raise
    return []


socket.getaddrinfo = slow

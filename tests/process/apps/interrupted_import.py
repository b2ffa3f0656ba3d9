"""A module whose import turns the exception that interrupts it into another one, as ``INSTEAD`` says."""

from __future__ import annotations

import os
import sys
import time

try:
    os.write(1, b"import began\n")
    time.sleep(1000)
except KeyboardInterrupt as exc:
    if os.environ["INSTEAD"] == "RuntimeError":
        raise RuntimeError("the import failed") from exc
    if os.environ["INSTEAD"] == "ImportError":
        raise ImportError("no such module") from exc
    if os.environ["INSTEAD"] == "SystemExit":
        sys.exit(4)

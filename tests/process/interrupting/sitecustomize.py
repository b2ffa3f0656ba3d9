"""Sends this process a signal when it begins to import ``INTERRUPT_AT``; ``INTERRUPT`` is the number."""

from __future__ import annotations

import os
import sys


def hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import" and arguments[0] == os.environ.get("INTERRUPT_AT"):
        os.environ.pop("INTERRUPT_AT")
        os.kill(os.getpid(), int(os.environ["INTERRUPT"]))


sys.addaudithook(hook)

"""Stop signals before the server has handlers of its own: the command just ends, as asked.

Most of the time from the start of the process to the server's handlers goes to imports, and Ctrl-C in that would be a
traceback, or click's "Aborted!". Nothing is there yet that would have to be put in order.
"""

from __future__ import annotations

# Not signal, whose import (enum, and more) takes a good part of the time that is to be quiet.
import _signal  # type: ignore[import-not-found]
import os
from types import FrameType
from typing import Any

_before: dict[int, Any] = {}


def leave_at_once() -> None:
    """Let SIGINT, SIGTERM and SIGQUIT end the process with exit code 0, from now on; in the main thread.

    A signal that is handled, or ignored (``nohup``), stays so.
    """
    for name in ("SIGINT", "SIGTERM", "SIGQUIT"):
        number = getattr(_signal, name, None)
        if number is not None and _signal.getsignal(number) in (_signal.SIG_DFL, _signal.default_int_handler):
            _before[number] = _signal.signal(number, _leave)


def leave_no_more() -> None:
    """Put back what was there, for a command that is not the server."""
    for number in tuple(_before):
        if _signal.getsignal(number) is _leave:
            _signal.signal(number, _before.pop(number))


def handler_before(number: int, handler: Any) -> Any:
    """What was there before ``handler``, if that is ours; ``handler`` if not."""
    return _before.get(number, handler) if handler is _leave else handler


def _leave(_number: int, _frame: FrameType | None) -> None:
    # Not SystemExit: it could be raised in the middle of an import, or where exceptions are swallowed.
    os._exit(0)

"""A start that has failed, told to the parent: all workers fail alike, and it says it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lastcall.base.errors import ConfigError, LastcallError, StartupError
from lastcall.base.exit_code import ExitCode
from lastcall.channel.blocking import send_now
from lastcall.channel.messages import Failed

if TYPE_CHECKING:
    import socket


def tell_parent(channel: socket.socket, error: LastcallError, tell: Callable[[LastcallError], int]) -> int:
    """Tell it, or call ``tell``, which returns the exit code as well, where the parent is not to be reached."""
    code = error.exit_code if isinstance(error, StartupError) else ExitCode.USAGE
    lines = error.errors if isinstance(error, ConfigError) else (error,)
    sent = send_now(channel, Failed(in_a_line(error), code, "\n".join(map(str, lines))))
    return code if sent else tell(error)


def in_a_line(error: LastcallError) -> str:
    """What is wrong, without the traceback that may follow it, but with the words of the exception."""
    first, *rest = str(error.errors[0] if isinstance(error, ConfigError) else error).splitlines()
    before, _, name = first.rpartition(": ")
    if rest and before and rest[-1].startswith(f"{name}: "):
        return f"{before}: {rest[-1]}"
    return first

"""A worker's process, from its orders to its exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lastcall.base.errors import ConfigError, LastcallError, StartupError
from lastcall.base.exit_code import ExitCode
from lastcall.channel.blocking import send_now
from lastcall.channel.messages import Failed
from lastcall.server.process import run_process
from lastcall.worker.parentage import Parentage
from lastcall.worker.signals import leave_to_parent
from lastcall.worker.worker import Worker

if TYPE_CHECKING:
    from lastcall.config import Config
    from lastcall.worker.boot import Orders


def run_worker(
    orders: Orders,
    config: Config,
    parentage: Parentage,
    *,
    tell: Callable[[LastcallError], int],
) -> int:
    """Serve until the parent says otherwise; the exit code, as of a process without a parent.

    An error of the start is told to the parent, or else given to ``tell``, which returns its exit code.
    """
    try:
        worker = Worker(orders, config, parentage)
    except (OSError, ValueError) as exc:
        error = StartupError(f"the parent's descriptors are of no use: {exc}")
        send_now(orders.channel, Failed(str(error), code := tell(error)))
        return code
    leave_to_parent()

    def told(error: LastcallError) -> int:
        code = error.exit_code if isinstance(error, StartupError) else ExitCode.USAGE
        lines = error.errors if isinstance(error, ConfigError) else (error,)
        # All workers fail alike, and the parent says it once.
        if worker.failed(in_a_line(error), code, "\n".join(map(str, lines))):
            return code
        return tell(error)

    return run_process(config, tell=told, final=True, parent=worker)


def in_a_line(error: LastcallError) -> str:
    """What is wrong, without the traceback that may follow it, but with the words of the exception."""
    first, *rest = str(error.errors[0] if isinstance(error, ConfigError) else error).splitlines()
    before, _, name = first.rpartition(": ")
    if rest and before and rest[-1].startswith(f"{name}: "):
        return f"{before}: {rest[-1]}"
    return first

"""A worker's process, from its orders to its exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lastcall.base.errors import LastcallError, StartupError
from lastcall.base.exit_code import ExitCode
from lastcall.channel.blocking import send_now
from lastcall.channel.messages import Failed
from lastcall.server.process import run_process
from lastcall.worker.failing import tell_parent
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
    last_words = orders.channel.dup()  # the channel is the loop's, and closed with it
    try:
        worker = Worker(orders, config, parentage)
    except (OSError, ValueError) as exc:
        return tell_parent(last_words, StartupError(f"the parent's descriptors are of no use: {exc}"), tell)
    leave_to_parent()
    try:
        return run_process(config, tell=lambda error: tell_parent(last_words, error, tell), final=True, parent=worker)
    except Exception as exc:
        said = f"an unexpected error: {type(exc).__name__}: {exc}".partition("\n")[0]
        send_now(last_words, Failed(said, ExitCode.ERROR))  # the traceback is written here
        raise

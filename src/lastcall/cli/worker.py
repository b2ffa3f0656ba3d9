"""``python -m lastcall.cli.worker FD``: a worker. Only a parent starts it, with its end of a socketpair as FD."""

from __future__ import annotations

# Not signal, whose import takes a good part of the time that is to be quiet.
import _signal  # type: ignore[import-not-found]
import os
import sys
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Entry point. Always ends in ``SystemExit`` with one of the exit codes."""
    _be_quiet()
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        raise SystemExit("lastcall's workers are started by lastcall itself: lastcall APP --workers N")
    raise SystemExit(_work(int(sys.argv[1])))


def _work(descriptor: int) -> int:
    from lastcall.base.errors import LastcallError  # noqa: PLC0415 - not before signals are quiet
    from lastcall.channel.messages import ChannelError  # noqa: PLC0415
    from lastcall.cli.run import collector_waits, tell  # noqa: PLC0415
    from lastcall.worker.boot import configure, receive_orders  # noqa: PLC0415
    from lastcall.worker.failing import tell_parent  # noqa: PLC0415

    parent = os.getppid()
    try:
        orders = receive_orders(descriptor)
    except (ChannelError, OSError) as error:
        print("Error: the parent is not to be understood:", error, file=sys.stderr)
        return 1
    if orders is None:
        return 0
    try:
        config = configure(orders.boot)
        with collector_waits(freeze=config.options.gc_freeze):
            from lastcall.worker.parentage import Parentage  # noqa: PLC0415
            from lastcall.worker.process import run_worker  # noqa: PLC0415
    except LastcallError as error:
        return tell_parent(orders.channel, error, tell)
    return run_worker(orders, config, Parentage(parent), tell=tell)


def _be_quiet() -> None:
    """Before there are handlers: Ctrl-C is the parent's affair, and SIGTERM ends what has not begun."""
    for name in ("SIGINT", "SIGQUIT"):
        if (number := getattr(_signal, name, None)) is not None:
            _signal.signal(number, _nothing)
    _signal.signal(_signal.SIGTERM, _leave)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The parent hears of it, and says what it is to mean."""


def _leave(_number: int, _frame: FrameType | None) -> None:
    # Not SystemExit: it could be raised in the middle of an import, or where exceptions are swallowed.
    os._exit(0)


if __name__ == "__main__":
    main()

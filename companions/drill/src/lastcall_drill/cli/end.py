"""How the drill's commands end early: with nothing left behind, whatever they were at."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

INTERRUPTED: Final = 130

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible(ctx: click.Context, who: str) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does: every process of ``who`` is killed, the exit code is 130."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS[1:]:
        if before[number] is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        for number in _SIGNALS:  # a second one must not cut the killing short
            signal.signal(number, signal.SIG_IGN)
        _end_all()
        click.echo(f"Interrupted. Every process that {who} has started is gone.", err=True)
        ctx.exit(INTERRUPTED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_all() -> None:
    from lastcall_drill.process import end_children, halt  # noqa: PLC0415 - not for --help

    halt()
    end_children()  # the interrupt may have come between a process's start and the note of it

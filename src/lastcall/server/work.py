"""What a stop acts upon, and who is told of it: the two sides of the shutdown controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lastcall.base.record import Record

if TYPE_CHECKING:
    from lastcall.asgi.lifespan import Lifespan
    from lastcall.base.progress import Progress
    from lastcall.connection.service import HTTPService
    from lastcall.drain.ladder import State
    from lastcall.drain.report import StopReport
    from lastcall.net.driver import Driver
    from lastcall.server.doors import Doors


class Work(Record):
    """What a stop acts upon: one server that serves."""

    driver: Driver
    service: HTTPService
    lifespan: Lifespan
    doors: Doors


class Callbacks(Record):
    """Who is told of a stop. All are called in the loop's thread, but for ``bound``.

    ``bound(seconds)``: from now on the stop takes at most so long, or has no limit (infinity). Called at the order, by
    whoever gives it (a signal's handler, say), and again when the loop hears of it, and of one to cancel, or, where a
    part has no limit, when that part is over.
    ``again(seconds, since)``: a part has had its seconds, since that time on the loop's clock; returns how many it gets
    on top, where the process stood still in them, or 0.0.
    ``on_draft(report)``: what there will be to report if the process is ended from now on; at the start, when the
    server serves, in each phase after that, and at the end. None: nobody wants it, and it need not be made.
    ``on_phase(state)`` on entering each phase after ``SERVING``, before its actions; ``set_should_exit()`` when
    libraries that poll for the stop are to see it; ``on_interrupt()`` when SIGINT orders something, in its handler;
    ``on_order()`` before the first word about an order; ``progress(how_far)`` each second while work remains, and with
    None when that is over; ``on_report(report)`` at the end.
    """

    bound: Callable[[float], None]
    again: Callable[[float, float], float]
    on_phase: Callable[[State], None]
    set_should_exit: Callable[[], None]
    on_interrupt: Callable[[], None]
    on_order: Callable[[], None]
    progress: Callable[[Progress | None], None]
    on_draft: Callable[[StopReport], None] | None
    on_report: Callable[[StopReport], None]

"""The worker's end of the channel: orders become acts, what happens becomes reports."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from lastcall.base.lost_workers import add_lost
from lastcall.base.record import replace
from lastcall.channel import messages
from lastcall.channel.blocking import hung_up
from lastcall.channel.endpoint import Endpoint
from lastcall.observe.logs import StopView
from lastcall.server.guarding import guarded
from lastcall.server.parent import Parent
from lastcall.worker.census import before_serving, census_of
from lastcall.worker.doors import SlotDoors
from lastcall.worker.heartbeat import Heartbeat
from lastcall.worker.moves import Moves
from lastcall.worker.signals import unblock

if TYPE_CHECKING:
    from lastcall.base.progress import Progress
    from lastcall.channel.messages import ChannelError, Message
    from lastcall.config import Config
    from lastcall.drain.report import StopReport
    from lastcall.net.listener import Listener
    from lastcall.server.controller import ShutdownController
    from lastcall.server.doors import Doors
    from lastcall.server.parent import Serving
    from lastcall.worker.boot import Orders
    from lastcall.worker.parentage import Parentage

logger = logging.getLogger("lastcall.error")

LAST_WORDS = 1.0
"""Seconds that are waited at the end for a parent that does not read."""


class Worker(Parent):
    """One worker, between its parent and its server.

    Made before the loop runs, with the descriptors that came with ``Boot``, which are its own from then on. Raises
    OSError or ValueError for descriptors that are not what they should be.
    """

    def __init__(self, orders: Orders, config: Config, parentage: Parentage) -> None:
        boot = orders.boot
        self.pid = parentage.pid
        self.role = f"worker {boot.worker}"
        self._parentage = parentage
        self._channel = orders.channel
        self._heartbeat = Heartbeat(orders.page, boot.beat)
        self._doors = SlotDoors(orders.private, config.options.net.binds, self._doors_closed)
        self._doors.alone = boot.alone
        self.expects_lifespan = boot.lifespan
        self._doors.add(boot.slots, boot.binds, orders.listeners)
        self._moves = Moves()
        self._view = StopView(guest=True)
        add_lost(boot.lost_workers)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._endpoint: Endpoint | None = None
        self._controller: ShutdownController | None = None
        self._serving: Serving | None = None
        self._asked: set[str] = set()
        self._answers_when_closed: list[Message] = []
        self._acts: dict[type[Message], Callable[[Any, list[int]], None]] = {
            messages.Accept: self._accept,
            messages.AddListeners: self._add_listeners,
            messages.CloseSlot: self._close_slot,
            messages.Adopt: self._adopt,
            messages.Retire: self._retire,
            messages.HandOver: self._hand_over,
            messages.Drain: self._drain,
            messages.Force: self._force,
            messages.Alone: self._set_alone,
            messages.LostWorkers: lambda order, _: add_lost(order.names),
            messages.CensusWanted: self._census,
        }

    # -- as Parent, for the server -------------------------------------------------------------------------------------

    @property
    def listeners(self) -> list[Listener]:
        """All that are open."""
        return self._doors.listeners

    def decides(self, signum: int) -> bool:
        """See ``Parent``. SIGTERM is somebody's wish that this worker goes: in the start it just does, later it asks.

        The watchdog, which counts on its own, has the same rule.
        """
        if not self._parentage.alive:
            self._orphaned()
            return False
        if signum == signal.SIGTERM:
            if self._serving is None:
                return False
            if self._loop is not None:
                with suppress(RuntimeError):  # the loop is closed: all is over
                    self._loop.call_soon_threadsafe(self.wants_to_retire, "SIGTERM")
        return True

    def begin(self, controller: ShutdownController) -> None:
        self._controller = controller
        self._loop = loop = asyncio.get_running_loop()
        unblock()
        self._parentage.end_with_it()
        self._heartbeat.start(loop)
        self._endpoint = Endpoint(self._channel, self._received, self._lost)
        self._say(messages.Hello(os.getpid()))
        if hung_up(self._channel):  # before the import, which hears of nothing but signals
            self._lost(None)

    def doors(self, serving: Serving) -> Doors:
        self._serving = serving
        self._moves.serve(serving)
        self._doors.serve(serving)
        return self._doors

    def ready(self, *, lifespan: bool) -> None:
        self._say(messages.Ready(lifespan))

    def wants_to_retire(self, cause: str) -> None:
        """See ``Parent``. Each cause is told once, and none in a stop."""
        assert self._controller is not None, "the loop runs"
        if cause not in self._asked and not self._controller.ordered:
            self._asked.add(cause)
            self._say(messages.RetireMe(cause))

    def progress(self, progress: Progress | None) -> None:
        if progress is not None:
            left = max(0.0, progress.left) if progress.left < math.inf else None
            named = tuple({"name": one.name, "kind": one.kind, "age": one.seconds} for one in progress.oldest)
            self._say(messages.Progress(progress.phase, left, progress.count, named))

    def stopped(self, report: StopReport) -> None:
        self._say(messages.Goodbye(report.as_dict(), self._moves.moved))

    def end(self) -> None:
        self._view.close()
        self._heartbeat.stop()
        self._moves.close()
        if self._endpoint is not None:
            self._endpoint.finish(LAST_WORDS)

    def let_go(self) -> None:
        if self._endpoint is not None:
            self._endpoint.let_go()
        self._moves.let_go()

    # -- orders ---------------------------------------------------------------------------------------------------

    def _say(self, message: Message) -> None:
        if self._endpoint is not None:
            self._endpoint.send(message)

    def _received(self, message: Message, descriptors: list[int]) -> None:
        act = self._acts.get(type(message))
        if act is None:
            logger.error("lastcall: a worker has no use for %s; please report this", type(message).__name__)
        else:
            guarded(partial(act, message, descriptors), f"the order {type(message).__name__}")
        for fd in descriptors:  # those that nobody has taken out
            os.close(fd)

    def _lost(self, error: ChannelError | None) -> None:
        """Nobody is left who could give orders, or tell of the stop: that is an order, and the log gets its lines."""
        assert self._controller is not None, "the loop runs"
        if gone := not self._parentage.alive:
            self._orphaned()
        if error is not None:
            logger.error("The channel to the parent broke: %s", error)
        elif not self._controller.ordered:
            logger.error("The parent %s: stopping.", "is gone" if gone else "has closed the channel")
        self._controller.level = logging.INFO
        self._controller.report_is_told = False
        self._order("parent-lost")

    def _orphaned(self) -> None:
        """Nobody shuts the door for us, nor tells of the stop. Also in a handler, which may come before the channel."""
        self._doors.orphaned()
        if self._controller is not None:
            self._controller.level = logging.INFO

    def _order(self, cause: str, level: int = 1, *, interactive: bool = False) -> None:
        assert self._controller is not None, "the loop runs"
        self._controller.give_order(cause, level, interactive=interactive)

    def _accept(self, order: messages.Accept, _descriptors: list[int]) -> None:
        self._say(messages.Accepting(self._doors.accept(order.slots)))

    def _add_listeners(self, order: messages.AddListeners, descriptors: list[int]) -> None:
        taken = descriptors.copy()
        descriptors.clear()
        self._doors.add(order.slots, order.binds, taken)
        self._say(messages.Added(order.slots))

    def _close_slot(self, order: messages.CloseSlot, _descriptors: list[int]) -> None:
        self._doors.close_slot(order.slot, lambda: self._say(messages.SlotClosed(order.slot)))

    def _adopt(self, _order: messages.Adopt, descriptors: list[int]) -> None:
        if self._serving is not None and not self._stopping:
            self._moves.adopt(descriptors.pop(), self._doors.by_key)

    def _hand_over(self, order: messages.HandOver, descriptors: list[int]) -> None:
        if self._serving is not None and not self._stopping:
            self._moves.hand_over(descriptors.pop(), order.share)

    def _retire(self, order: messages.Retire, descriptors: list[int]) -> None:
        """Only this worker stops: others serve, so that nobody has to be warned that the service goes (no delay)."""
        controller, serving = self._controller, self._serving
        if serving is not None and controller is not None and not self._stopping:
            serving.service.drain.service_goes_on = True
            controller.budgets = replace(controller.budgets, delay=0.0)
            if order.successor:
                self._doors.leave()
                if descriptors:
                    self._moves.retire(descriptors.pop())
            else:
                self._when_closed(messages.Emptied())
        if order.successor or serving is None:
            self._say(messages.StoppedAccepting())
        else:
            self._when_closed(messages.StoppedAccepting())
        self._order(order.cause, interactive=order.short)

    def _drain(self, order: messages.Drain, _descriptors: list[int]) -> None:
        self._moves.stay()
        self._view.ordered()
        if self._controller is not None:
            self._controller.report_is_told = True
        if self._serving is not None:
            self._serving.service.drain.service_goes_on = False
        self._when_closed(messages.Emptied())
        self._order(order.cause, interactive=order.interactive)

    def _set_alone(self, order: messages.Alone, _descriptors: list[int]) -> None:
        self._doors.alone = order.alone

    def _force(self, order: messages.Force, _descriptors: list[int]) -> None:
        self._order(order.cause, 2)

    @property
    def _stopping(self) -> bool:
        return self._controller is not None and self._controller.ordered

    def _when_closed(self, answer: Message) -> None:
        """Say that when our listeners are closed; at once if they are, or if nobody was ever let in."""
        if self._doors.closed or self._serving is None:
            self._say(answer)
        else:
            self._answers_when_closed.append(answer)

    def _doors_closed(self) -> None:
        for answer in self._answers_when_closed:
            self._say(answer)
        self._answers_when_closed.clear()

    def _census(self, order: messages.CensusWanted, _descriptors: list[int]) -> None:
        serving, moves = self._serving, self._moves
        if serving is None:
            self._say(before_serving(order.number))
            return
        assert self._loop is not None, "the loop runs"
        self._say(
            census_of(
                order.number,
                serving,
                private=self._doors.visitors,
                now=self._loop.time(),
                tasks=order.tasks,
                moved=moves.moved,
                adopted=moves.adopted,
            )
        )

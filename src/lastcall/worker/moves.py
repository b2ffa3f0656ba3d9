"""Connections that move house: what a worker passes on to another, and what it takes (``net.moving``)."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

from lastcall.net.moving import Adopter, Mover

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lastcall.net.listener import Listener
    from lastcall.server.parent import Serving


logger = logging.getLogger("lastcall.error")


class Moves:
    """The movers and adopters of one worker. Descriptors are ends of a ``moving_pair()``, and ours from the call on.

    ``moved`` and ``adopted`` count connections.
    """

    def __init__(self) -> None:
        self._serving: Serving | None = None
        self._movers: list[Mover] = []
        self._adopters: list[Adopter] = []

    @property
    def moved(self) -> int:
        """Connections that another worker has got from this one."""
        return 0 if self._serving is None else self._serving.driver.moved

    @property
    def adopted(self) -> int:
        """Connections that this worker has got from others."""
        return 0 if self._serving is None else self._serving.driver.adopted

    def serve(self, serving: Serving) -> None:
        """What connections are passed from, and come to."""
        self._serving = serving

    def adopt(self, descriptor: int, listeners: Mapping[int, Listener]) -> None:
        """Take what another worker passes; ``listeners`` by the keys that all workers have for them."""
        serving = self._serving
        if serving is None:
            os.close(descriptor)
            return
        self._adopters = [one for one in self._adopters if not one.ended]
        sock = socket.socket(fileno=descriptor)
        try:
            self._adopters.append(Adopter(serving.driver, listeners, sock, serving.service.scheduler.loop))
        except (OSError, ValueError) as exc:
            sock.close()  # of which the other side hears
            logger.error("No connections are taken over: %s", exc)

    def retire(self, descriptor: int) -> None:
        """Pass on every connection that is or falls idle; from now on none of them is told to close."""
        if (mover := self._mover(descriptor)) is not None:
            mover.move_all()

    def hand_over(self, descriptor: int, share: float) -> None:
        """Pass on ``share`` (0 to 1) of those that are idle, and go on."""
        if (mover := self._mover(descriptor)) is not None:
            mover.move_share(share)

    def stay(self) -> None:
        """The others stop, too: pass on nothing more."""
        for mover in self._movers:
            mover.stop()

    def close(self) -> None:
        """The loop is about to end."""
        for mover in self._movers:
            mover.close()
        for adopter in self._adopters:
            adopter.close()

    def let_go(self) -> None:
        """In a forked child: close our copies."""
        for one in (*self._movers, *self._adopters):
            one.let_go()

    def _mover(self, descriptor: int) -> Mover | None:
        serving = self._serving
        if serving is None:
            os.close(descriptor)
            return None
        self._movers = [one for one in self._movers if not one.ended]
        sock = socket.socket(fileno=descriptor)
        try:
            mover = Mover(serving.driver, sock, serving.service.scheduler.loop)
        except (OSError, ValueError) as exc:
            sock.close()
            logger.error("No connections move to another worker: %s", exc)
            return None
        self._movers.append(mover)
        return mover

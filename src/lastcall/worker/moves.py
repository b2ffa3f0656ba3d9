"""Connections that move house: what a worker passes on to another, and what it takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lastcall.server.parent import Serving


class Moves:
    """The movers and adopters of one worker, and what they came to. Descriptors are ours from the call on."""

    def __init__(self) -> None:
        self.moved = 0
        self.adopted = 0

    def adopt(self, serving: Serving, descriptor: int) -> None:
        """Take what another worker passes through ``descriptor``."""
        os.close(descriptor)

    def retire(self, serving: Serving, descriptor: int) -> None:
        """Pass on every connection that is or falls idle; from now on none is told to close."""
        os.close(descriptor)

    def hand_over(self, serving: Serving, descriptor: int, share: float) -> None:
        """Pass on ``share`` (0 to 1) of those that are idle, and go on."""
        os.close(descriptor)

    def stay(self) -> None:
        """The successor is about to stop, too: pass on nothing more."""

    def let_go(self) -> None:
        """In a forked child: close our copies."""

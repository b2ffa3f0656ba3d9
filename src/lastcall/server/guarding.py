"""What a stop does is done whatever goes wrong in one part of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger("lastcall.error")


def guarded(act: Callable[[], object], what: str) -> None:
    """Call ``act``. Whatever goes wrong in it, and however, is logged, and the stop goes on. ``what`` names it."""
    try:
        act()
    except BaseException:
        logger.exception("lastcall: internal error while stopping (%s); please report this", what)

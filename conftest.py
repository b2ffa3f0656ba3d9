"""What all tests share, those of the companions too."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell starts what runs in its background (``make test`` does) with these ignored, and children inherit that."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)

"""What all tests share, those of the companions too."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from types import FrameType
from typing import Any

import pytest
import pytest_timeout

from testing.patience import Patience


def pytest_configure() -> None:
    """Set up what the tests and their processes inherit."""
    # A shell starts what runs in its background (``make test`` does) with these ignored, and children inherit that.
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGQUIT: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    for number, handler in defaults.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    # Control sockets of services that a test kills stay where they are: not among those of this machine's user.
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="lastcall-tests-")


def pytest_unconfigure() -> None:
    """Take it away again."""
    shutil.rmtree(os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: Any, settings: Any) -> bool | None:
    """A test's time is up when it has hung for so long; on a busy machine it may take longer than that."""
    if settings.method != "signal":
        return None
    patience = Patience(settings.timeout)

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if (left := patience.left) > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.5))
        else:
            pytest_timeout.timeout_sigalrm(item, settings)

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    return True

"""One worker process: listeners, lifespan, the controller that carries out a stop, signals, teardown."""

from __future__ import annotations

from lastcall.drain.report import StopReport
from lastcall.server.server import Server

__all__ = ["Server", "StopReport"]

"""``sd_notify(3)``: the state of the service, told to the manager by datagrams.

Nothing here raises because of the manager: one that is away, restarts or does not listen is none of our clients'
business. What is lost that way is a debug line.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

from lastcall.base.record import Record

logger = logging.getLogger("lastcall.error")

_PATIENCE: Final = 1.0
"""Seconds that a message may wait for room in the manager's queue, where losing it would leave the unit in a state."""
_LONGEST_STATUS: Final = 300


class Place(Record):
    """Where the manager listens, and how often it wants to hear that we live.

    ``address`` is that of ``NOTIFY_SOCKET``: a path, or ``@name`` for an abstract socket; "": nobody wants to know.
    ``watchdog``: the manager kills a process of which it has not heard for so many seconds; infinity: it does not.
    """

    address: str = ""
    watchdog: float = math.inf

    @property
    def variables(self) -> dict[str, str]:
        """What ``take_place`` has taken, for a process that is to be the service from some time on."""
        watched = {"WATCHDOG_USEC": str(round(self.watchdog * 1e6))} if self.watchdog < math.inf else {}
        return {"NOTIFY_SOCKET": self.address, **watched} if self.address else {}


def take_place(environ: MutableMapping[str, str], pid: int) -> Place:
    """Take ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` out of the environment of the process ``pid``.

    They are removed, so that nothing that this process starts speaks to the manager in its place.
    """
    address = environ.pop("NOTIFY_SOCKET", "")
    usec = environ.pop("WATCHDOG_USEC", "")
    meant = environ.pop("WATCHDOG_PID", "")
    watched = usec.isascii() and usec.isdigit() and len(usec) <= 19 and int(usec) > 0 and meant in ("", str(pid))
    return Place(address if address[:1] in ("/", "@") else "", int(usec) / 1e6 if watched else math.inf)


class Notifier:
    """Tells the manager at ``place``; without one, all of this does nothing. Cheap to make, and safe in any thread.

    Only ``ready``, ``reloading``, ``stopping`` and ``main_pid`` may wait for a moment, when the manager's queue is
    full; ``alive``, ``status`` and ``extend`` may be called by a signal's handler.

    ``held``: another process is the service still; nothing is said before ``begin()``.
    """

    def __init__(self, place: Place, *, held: bool = False) -> None:
        self._address = _address(place.address)
        self._held = held
        self._socket: socket.socket | None = None
        self.watchdog = place.watchdog if place.address else math.inf
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # PEP 446: no child inherits it
            self._socket.setblocking(False)

    @property
    def listening(self) -> bool:
        """Whether there is somebody to tell."""
        return self._socket is not None

    def begin(self) -> None:
        """This process is the service from now on."""
        self._held = False

    def ready(self, status: str = "") -> bool:
        """``READY=1``: the start, or a reload, is over."""
        return self._send("READY=1", _status(status), patience=_PATIENCE)

    def reloading(self, status: str = "") -> bool:
        """``RELOADING=1``, to be followed by ``ready``. ``Type=notify-reload`` compares the time with its signal's."""
        moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={moment}", _status(status), patience=_PATIENCE)

    def stopping(self, status: str = "") -> bool:
        """``STOPPING=1``: the stop has begun, by whoever's order."""
        return self._send("STOPPING=1", _status(status), patience=_PATIENCE)

    def main_pid(self, pid: int) -> bool:
        """``MAINPID=``: another process is the service from now on. Needs ``NotifyAccess=all`` if it says so itself."""
        return self._send(f"MAINPID={pid}", patience=_PATIENCE)

    def status(self, text: str) -> bool:
        """``STATUS=``: a line for ``systemctl status``."""
        return self._send(_status(text))

    def alive(self) -> bool:
        """``WATCHDOG=1``, to be sent at least every half of ``watchdog`` seconds."""
        return self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> bool:
        """``EXTEND_TIMEOUT_USEC=``: the start or stop that is going on may take so many seconds from now on.

        It never shortens what the unit says.
        """
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def close(self) -> None:
        """Say nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str, patience: float = 0.0) -> bool:
        """Send one datagram; whether it went out."""
        sock = self._socket
        if sock is None or self._held:
            return False
        message = "\n".join(line for line in lines if line).encode("utf-8", "replace")
        deadline = time.monotonic() + patience
        while True:
            try:
                sock.sendto(message, self._address)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    logger.debug("The service manager reads nothing: %r is lost", message)
                    return False
                time.sleep(0.01)
            except OSError as exc:
                logger.debug("The service manager is not there (%s): %r is lost", exc.strerror, message)
                return False


def _address(text: str) -> bytes:
    raw = os.fsencode(text)
    return b"\0" + raw[1:] if raw[:1] == b"@" else raw


def _status(text: str) -> str:
    """A line of ``STATUS=``: one line whatever is in it, since the next one would be a field of its own."""
    line = "".join(char if char.isprintable() else " " for char in text[:_LONGEST_STATUS])
    return f"STATUS={line}" if line else ""

"""The first message: who this worker is, what it is to serve, and the descriptors for that."""

from __future__ import annotations

import base64
import os
import pickle
import socket
import sys

from lastcall.base.errors import StartupError
from lastcall.base.record import Record
from lastcall.channel.blocking import receive_now
from lastcall.channel.messages import Boot, ChannelError
from lastcall.config import Config

NUMBER = "LASTCALL_WORKER_ID"
"""The variable that tells the application which worker it is in. The parent sets it; no two have the same."""

DESCRIPTORS_FIRST = 2
"""The page of heartbeats, and the private listener; then come the slots' listeners."""


class Orders(Record):
    """What the parent has sent to begin with. ``channel`` is our end; the other descriptors are this process's, too."""

    boot: Boot
    channel: socket.socket
    page: int
    private: int
    listeners: tuple[int, ...]

    def close(self) -> None:
        """Close the descriptors of the listeners, where it comes to no server."""
        for fd in (self.page, self.private, *self.listeners):
            os.close(fd)


def receive_orders(descriptor: int) -> Orders | None:
    """Wait for ``Boot`` on the channel; None: the parent is gone. Raises ChannelError where something else comes."""
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)  # it was inherited for us, not for what the application starts
    found = receive_now(channel)
    if found is None:
        return None
    boot, descriptors = found
    if not isinstance(boot, Boot) or len(descriptors) != DESCRIPTORS_FIRST + len(boot.slots):
        raise ChannelError(f"{type(boot).__name__} with {len(descriptors)} descriptors is no way to begin")
    page, private, *listeners = descriptors
    return Orders(boot, channel, page, private, tuple(listeners))


def configure(boot: Boot) -> Config:
    """Find modules where the parent does, and make the parent's configuration.

    Raises ConfigError where what was usable no longer is, StartupError where the source cannot be read.
    """
    sys.path[:] = boot.sys_path
    os.environ.setdefault(NUMBER, str(boot.worker))
    try:
        origin = pickle.loads(base64.b64decode(boot.settings))
    except Exception as exc:  # a class that is somewhere else by now, say
        raise StartupError(f"the configuration cannot be had in a worker: {type(exc).__name__}: {exc}") from exc
    return Config.from_origin(origin, os.environ)

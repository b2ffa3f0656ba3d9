"""A successor in a process of its own: ``python -m testing.adopting FD FAULT``, where FD is its end of a pair.

FAULT is ``none``; ``dies``: SIGKILL in place of its first acknowledgement; ``few``: it has five free descriptors;
``liar``: so it has, and says that there are more. It answers with ``process``, and writes two lines: ``ready``, and,
when its standard input has ended, a JSON with how many it has adopted, and the longest that one message took (CPU
seconds).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

from lastcall.net import moving
from testing.moving import adopter, named
from testing.running import running

FREE = 5
longest = 0.0


def timed(cls: type, name: str) -> None:
    """Have every call of ``cls.name`` measured."""
    method = getattr(cls, name)

    def measured(*args: Any) -> Any:
        global longest  # noqa: PLW0603
        began = time.thread_time()
        try:
            return method(*args)
        finally:
            longest = max(longest, time.thread_time() - began)

    setattr(cls, name, measured)


def fail(fault: str) -> None:
    """Arrange for it."""
    if fault == "dies":
        said = moving.Adopter._say

        def say(self: moving.Adopter, what: dict[str, Any], taken: int = 0) -> bool:
            if "received" in what:
                os.kill(os.getpid(), signal.SIGKILL)
            return said(self, what, taken)

        moving.Adopter._say = say  # type: ignore[method-assign]
    if fault in ("few", "liar"):
        free = FREE + (moving.SPARE_DESCRIPTORS if fault == "few" else 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - moving.free_descriptors() + free, hard))
    if fault == "liar":
        moving.free_descriptors = lambda: 1000


def main() -> None:
    """See the module's docstring."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    timed(moving.Adopter, "_readable")
    with running(named("process"), driver="native") as server:
        server.peer().close()  # whatever is opened at the first connection is open now
        fail(sys.argv[2])
        found = adopter(server, sock)
        print("ready", flush=True)
        sys.stdin.read()
        print(json.dumps({"adopted": found.adopted, "longest": longest}), flush=True)


if __name__ == "__main__":
    main()

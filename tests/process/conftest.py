"""Real processes, raw sockets, real signals."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.clock import Stopwatch
from testing.peer import Peer
from testing.process import ServerProcess

__all__ = ["APPS", "Start", "Stopwatch", "answers", "open_stream", "start", "wait_for_output"]

APPS = Path(__file__).with_name("apps")

Start = Callable[..., ServerProcess]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is slow."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(app, *options)``: a process that is ready. With ``ready=False`` it is only started."""
    with ExitStack() as stack:

        def begin(
            app: str = "app", *options: str, ready: bool = True, env: Mapping[str, str] | None = None
        ) -> ServerProcess:
            target = app if ":" in app else f"behaviours:{app}"
            server = stack.enter_context(ServerProcess(options, target, env, APPS))
            if ready:
                server.wait_ready()
            return server

        yield begin


def open_stream(server: ServerProcess, path: str = "/stream") -> Peer:
    """A client that holds a stream."""
    peer = Peer(server.addresses[0])
    peer.request(path)
    peer.head()
    assert peer.chunk()
    return peer


def wait_for_output(server: ServerProcess, text: str, timeout: float = 10.0) -> None:
    """Wait until the application has said ``text`` on stdout."""
    assert server._stdout.wait(lambda said: text in said, timeout), f"{text!r} is not in {server.stdout!r}"


def answers(path: str) -> bool:
    """Whether somebody listens on this unix socket: for a server whose ready line cannot be read."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True

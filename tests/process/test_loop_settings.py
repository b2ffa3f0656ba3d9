"""No setting of the application's on the event loop changes a stop: none of ours is asked of the loop by way of it."""

from __future__ import annotations

import signal

import pytest

from testing.peer import Peer
from tests.process.conftest import Start, wait_for_output

LOOPS = ("auto", "asyncio", "uvloop")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("driver", ["native", "asyncio"])
@pytest.mark.parametrize("setting", ["eager", "refusing factory", "futures"])
def test_whatever_makes_the_tasks_of_the_application(start: Start, setting: str, driver: str, loop: str) -> None:
    stops_as_ever(start, setting, "--loop", loop, "--driver", driver)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("setting", ["raising handler", "debug"])
def test_whatever_else_is_set(start: Start, setting: str, loop: str) -> None:
    stops_as_ever(start, setting, "--loop", loop)


def stops_as_ever(start: Start, setting: str, *options: str) -> None:
    server = start("loop_settings:app", "--no-access-log", *options, env={"SETTING": setting})
    with Peer(server.addresses[0]) as breaking:
        assert breaking.get("/breaks").status == 200
    with Peer(server.addresses[0]) as peer:
        peer.request("/slow")
        wait_for_output(server, "slow began")
        server.signal(signal.SIGTERM)
        assert peer.answer().body == b"ok"
    assert server.wait() == 0
    assert server.stdout.splitlines() == [
        "slow began",
        "shutdown began",
        "the shutdown code ran",
        "the task was cancelled",
        "the generator was closed",
    ]
    assert "1 of 1 finished" in server.stderr
    assert "please report" not in server.stderr
    assert "default exception handler" not in server.stderr  # that is, an exception in it

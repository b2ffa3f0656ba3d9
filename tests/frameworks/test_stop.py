"""SIGTERM while a framework is at work."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from testing.process import ServerProcess
from tests.frameworks.apps import common
from tests.frameworks.serving import FRAMEWORKS, ROOT, WARNINGS, Served, serving

pytestmark = pytest.mark.slow


@contextmanager
def stopping_in_mid_stream(server: Served, tmp_path: Path) -> Iterator[None]:
    """Within: the stop has begun, and cannot end, because a stream has sent one piece. After: it has got the others."""
    go = tmp_path / "go"
    with httpx.stream("GET", f"{server.url}/stream", params={"until": str(go)}, trust_env=False) as response:
        arriving = response.iter_raw()
        assert next(arriving) == common.PIECES[0]
        server.process.signal(signal.SIGTERM)
        server.process.wait_for(r"Stopping \(SIGTERM\): 1 request in flight")
        yield
        go.touch()
        assert b"".join(arriving) == b"".join(common.PIECES[1:])


@pytest.mark.parametrize(
    ("framework", "driver"), [*((framework, "native") for framework in FRAMEWORKS), ("starlette", "asyncio")]
)
def test_a_stream_in_flight_is_finished_before_the_lifespan_ends(framework: str, driver: str, tmp_path: Path) -> None:
    with serving(framework, "--driver", driver) as server:
        with stopping_in_mid_stream(server, tmp_path):
            pass
        assert server.process.wait() == 0
    stderr = server.process.stderr
    assert stderr.index("Stopping (SIGTERM)") < stderr.index(common.STREAMED) < stderr.index(common.CLOSED)
    assert "1 of 1 finished; " in stderr
    assert re.search(r'"GET /stream\?until=\S+ HTTP/1.1" 200 OK', server.process.stdout)


def connect_often(url: str) -> None:
    for _ in range(1000):
        assert httpx.get(f"{url}/json", trust_env=False).status_code == 200


@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_who_connects_during_a_stop_is_answered_or_refused(driver: str, tmp_path: Path) -> None:
    """Not left waiting in the backlog of a listener that nobody accepts from, and reset at the end."""
    with serving("starlette", "--driver", driver) as server:
        with stopping_in_mid_stream(server, tmp_path), pytest.raises(httpx.ConnectError):
            connect_often(server.url)
        assert server.process.wait() == 0


def test_django_alone_has_no_lifespan_and_needs_none() -> None:
    with ServerProcess([], "tests.frameworks.apps.django_app:bare", env=WARNINGS, cwd=ROOT) as process:
        url = process.wait_ready()[0]
        assert httpx.get(f"{url}/json", trust_env=False).json() == {"framework": "django", "answer": 42}
        assert process.stop() == 0
    assert "Traceback" not in process.stderr
    assert common.OPENED not in process.stderr


def test_django_alone_with_lifespan_on_is_a_failed_start() -> None:
    with ServerProcess(["--lifespan", "on"], "tests.frameworks.apps.django_app:bare", cwd=ROOT) as process:
        assert process.wait() == 3
    assert "Django can only handle ASGI/HTTP connections, not lifespan" in process.stderr

"""SIGTERM while a framework is at work."""

from __future__ import annotations

import signal

import httpx
import pytest

from tests.frameworks.apps import common
from tests.frameworks.serving import FRAMEWORKS, ROOT, WARNINGS, serving
from tests.support.process import ServerProcess

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("framework", "driver"), [*((framework, "native") for framework in FRAMEWORKS), ("starlette", "asyncio")]
)
def test_a_stream_in_flight_is_finished_before_the_lifespan_ends(framework: str, driver: str) -> None:
    with serving(framework, "--driver", driver) as server:
        with httpx.stream("GET", f"{server.url}/stream?pause=0.1", trust_env=False) as response:
            arriving = response.iter_raw()
            assert next(arriving) == common.PIECES[0]
            server.process.signal(signal.SIGTERM)
            server.process.wait_for(r"Stopping \(SIGTERM\): 1 request in flight")
            assert b"".join(arriving) == b"".join(common.PIECES[1:])
            assert common.CLOSED not in server.process.stderr
        assert server.process.wait() == 0
    assert "1 of 1 requests finished" in server.process.stderr
    assert '"GET /stream?pause=0.1 HTTP/1.1" 200 OK' in server.process.stdout


@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_connecting_during_a_stop_is_refused_at_once(driver: str) -> None:
    """Not left to wait in the backlog of a listener that nobody will accept from."""
    with serving("starlette", "--driver", driver) as server:
        with httpx.stream("GET", f"{server.url}/stream?pause=0.2", trust_env=False) as response:
            arriving = response.iter_raw()
            assert next(arriving) == common.PIECES[0]
            server.process.signal(signal.SIGTERM)
            server.process.wait_for(r"Stopping \(SIGTERM\): 1 request in flight")
            assert next(arriving) == common.PIECES[1]
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.url}/json", trust_env=False)
            assert b"".join(arriving) == b"".join(common.PIECES[2:])
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

"""Real clients of streams at a stop: who comes back by itself, and who is told that something is missing."""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import mcp
import openai
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

from testing.browser import chromium
from testing.peer import Peer, eventually
from testing.process import ServerProcess
from tests.frameworks.apps import common, events_app
from tests.frameworks.draining import ALARMS, Drained, draining
from tests.frameworks.serving import ROOT, WARNINGS

pytestmark = pytest.mark.slow

APP = "tests.frameworks.apps.events_app:app"
STOPS = 3  # mcp's client gives its channel up after the second cut


class Service:
    """Servers behind one address that never refuses a connection: each next one is there before the last is stopped."""

    def __init__(self, *options: str) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._options = ["--timeout-graceful-shutdown", "5", "--drain-farewell", "0", *options]  # a margin of 0.5 s
        self._options += ["--fd", str(self.listener.fileno())]
        self._stack = ExitStack()
        self.server = self._start()

    def _start(self) -> ServerProcess:
        fds = [self.listener.fileno()]
        server = self._stack.enter_context(ServerProcess(self._options, APP, WARNINGS, ROOT, pass_fds=fds))
        server.wait_ready()
        return server

    def replace(self) -> None:
        """Stop the server, in good order, when the next one serves."""
        earlier, self.server = self.server, self._start()
        assert earlier.stop() == 0, earlier.stderr
        assert earlier.stderr.count(common.CLOSED) == 1
        assert not any(alarm in earlier.stderr for alarm in ALARMS), earlier.stderr
        # One that comes back at once may still be let in, and is closed again.
        assert re.search(r": 0 of (\d+) finished, \1 closed by policy;", earlier.stderr), earlier.stderr

    def close(self) -> None:
        self._stack.close()
        self.listener.close()


@contextmanager
def service(*options: str) -> Iterator[Service]:
    found = Service(*options)
    try:
        yield found
    finally:
        found.close()


def test_mcps_channel_comes_back_after_every_stop() -> None:
    """A cut counts for the life of the session, and the second one would end it without a word."""

    async def channel(servers: Service) -> None:
        async with mcp.Client(f"{servers.url}/mcp", mode="legacy"):
            for stop in range(STOPS + 1):
                opened = events_app.OPENED + "/mcp"
                await anyio.to_thread.run_sync(servers.server.wait_for, opened)
                if stop < STOPS:
                    await anyio.to_thread.run_sync(servers.replace)

    with service("--drain-close", "/mcp") as servers:
        anyio.run(channel, servers)


LISTEN = """
const source = new EventSource("/events");
window.seen = [];
source.onmessage = event => seen.push(event.data);
window.source = source;
"""


def test_an_event_source_comes_back_after_every_stop(tmp_path: Path) -> None:
    with service("--drain-close", "/events") as servers, chromium(tmp_path) as page:
        page.get(servers.url)
        page.execute_script(LISTEN)
        pids = []
        for stop in range(STOPS + 1):
            pids.append(str(servers.server.pid))
            WebDriverWait(page, 20, 0.05).until(seen(pids))
            if stop < STOPS:
                servers.replace()


def seen(events: list[str]) -> Callable[[Chrome], bool]:
    """Whether the page has had these events, each once or more, and its EventSource has not given up."""

    def found(page: Chrome) -> bool:
        state, got = page.execute_script("return [source.readyState, seen]")
        assert state != 2, "CLOSED: it will not come back"
        return [event for event, _ in itertools.groupby(got)] == events

    return found


def completions(client: openai.OpenAI) -> Any:
    """A model's answer, by POST."""
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True)


def response(client: openai.OpenAI) -> Any:
    """One that was begun before, by GET, as an event stream too."""
    return client.responses.retrieve("r1", stream=True)


@pytest.mark.parametrize("ask", [completions, response])
@pytest.mark.parametrize("end", ["policy", "grace"])
def test_a_models_client_is_told_that_its_answer_is_not_whole(
    ask: Callable[[openai.OpenAI], Any], end: str, tmp_path: Path
) -> None:
    """In order, the same end would be silent: the client would take two tokens for the whole answer."""
    options = ("--drain-close", "*", "--drain-farewell", "0") if end == "policy" else ()
    with (
        draining("events_app:app", tmp_path / "report", "--timeout-graceful-shutdown", "1", *options) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        stream = ask(client)
        events = [next(stream), next(stream)]
        server.stop()
        with pytest.raises(openai.APIConnectionError):
            next(stream)
        assert len(events) == 2
        stopped(server, 1 if end == "policy" else 0)


def stopped(server: Drained, by_policy: int) -> None:
    report = server.stopped()
    assert (report["closed_by_policy"], report["disconnected"]) == (by_policy, 1 - by_policy)


@pytest.mark.parametrize(("how", "gives_up"), [("retry", False), ("503", True)])
def test_an_event_source_that_is_refused_at_a_limit_comes_again_unless_it_gets_503(
    how: str, gives_up: bool, tmp_path: Path
) -> None:
    options = ("--limit-concurrency", "1", "--refuse-event-streams", how, "--timeout-disconnect", "0")
    with (
        draining("events_app:app", tmp_path / "report", *options) as server,
        chromium(tmp_path / "profile") as page,
    ):
        page.get(f"{server.url}/")
        with Peer(server.url) as busy:
            busy.request("/busy")
            busy.head()
            page.execute_script(LISTEN)
            eventually(lambda: "GET /events" in server.process.stdout)
        if gives_up:
            WebDriverWait(page, 10, 0.05).until(lambda page: page.execute_script("return source.readyState") == 2)
        else:
            pid = str(server.process.pid)
            WebDriverWait(page, 20, 0.05).until(seen([pid]))
            page.execute_script("source.close()")
        server.stop()
        server.stopped(alarms=("Traceback", "ERROR"))

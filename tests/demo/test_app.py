"""The demo, started as its users start it, and stopped by Ctrl-C while the page is in use."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from demo.app import PAGE
from testing.browser import FLAGS, program

PROJECT = Path(__file__).parents[2]
LASTCALL = Path(sys.executable).with_name("lastcall")

pytestmark = pytest.mark.slow


class Demo:
    """The running demo. What it wrote to stderr is read line by line, up to what a test waits for."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [LASTCALL, "demo.app:app", "--port", "0", "--timeout-interrupt", "5"],
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.url = self.wait_for(r"lastcall running on (http://\S+)")[1]

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The match of ``pattern`` in the first new line that has one."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"{pattern} is not in:\n{''.join(self.lines)}")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Exit code and everything that was written to stderr."""
        assert self.process.stderr is not None
        self.lines += self.process.stderr
        return self.process.wait(), "".join(self.lines)


@pytest.fixture
def demo() -> Iterator[Demo]:
    running = Demo()
    yield running
    if running.process.poll() is None:
        running.process.kill()
    running.end()
    assert running.process.stderr is not None
    running.process.stderr.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'chromium'}")
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    driver = Chrome(options=options, service=Service(program("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.mark.timeout(120)
def test_the_page_shows_that_the_server_is_stopping(demo: Demo, browser: Chrome) -> None:
    def text(name: str) -> str:
        return browser.find_element(By.ID, name).text

    def wait(holds: Callable[[], bool]) -> None:
        WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: holds())

    browser.get(demo.url)
    wait(lambda: text("clock") != "--:--:--" and text("news").startswith("number"))
    assert text("stopping") == "", "there is nothing to be seen before"
    browser.find_element(By.ID, "slow").click()
    demo.wait_for("slow request: 1 of 4")
    demo.interrupt()
    wait(lambda: text("news") == "goodbye")
    shown: list[str] = []

    def counted() -> bool:
        shown.append(text("stopping"))
        return "streams" in shown[-1]

    wait(counted)
    seconds = [int(found[1]) for line in shown if (found := re.search(r"stopping: (\d+) s left", line))]
    assert seconds
    assert seconds == sorted(seconds, reverse=True)
    assert "stream without an end: cut" in text("log")
    assert 'slow request: 200, "4 seconds of work, done in full"' in text("log")


def test_page_and_upload(demo: Demo) -> None:
    with httpx.Client(base_url=demo.url) as client:
        page = client.get("/")
        assert (page.status_code, page.content) == (200, PAGE)
        assert client.head("/").content == b""
        assert client.get("/nowhere").status_code == 404
        counted = client.post("/echo", content=b"hello" * 60_000).json()
        assert (counted["bytes"], counted["begins"]) == (300_000, "hello" * 40)
    demo.interrupt()
    code, stderr = demo.end()
    assert code == 0
    assert "lifespan.shutdown" in stderr
    assert "uploads: 1" in stderr


def test_ctrl_c_while_the_page_is_in_use(demo: Demo) -> None:
    """The slow request is answered in full, the stream is ended visibly, the application's shutdown code runs."""

    async def use() -> tuple[httpx.Response, list[str], str, Exception | None]:
        ticks: list[str] = []
        failure: Exception | None = None
        ticking = asyncio.Event()

        async def watch(client: httpx.AsyncClient) -> None:
            nonlocal failure
            try:
                async with client.stream("GET", "/clock") as response:
                    async for line in response.aiter_lines():
                        ticks.append(line)
                        ticking.set()
            except httpx.RemoteProtocolError as error:
                failure = error

        async def read(client: httpx.AsyncClient) -> str:
            return (await client.get("/news")).text  # raises if it is cut

        async with httpx.AsyncClient(base_url=demo.url, timeout=15) as client:
            slow = asyncio.create_task(client.get("/slow"))
            clock = asyncio.create_task(watch(client))
            news = asyncio.create_task(read(client))
            await ticking.wait()
            await asyncio.to_thread(demo.wait_for, "slow request: 1 of 4")
            demo.interrupt()
            goodbye = await news
            assert not clock.done(), "the goodbye comes at once, the cut when the time is over"
            answer = await slow
            await clock
        return answer, ticks, goodbye, failure

    answer, ticks, goodbye, failure = asyncio.run(use())
    assert goodbye.startswith("event: message\ndata: number 1\n\n")
    last = re.search(r"event: goodbye\ndata: \{\"seconds\": ([\d.]+)\}\n\n\Z", goodbye)
    assert last is not None
    assert 0 < float(last[1]) <= 5
    assert (answer.status_code, answer.text) == (200, "4 seconds of work, done in full")
    assert answer.headers["connection"] == "close"
    assert len([tick for tick in ticks if tick.startswith("data: ")]) >= 2, "the stream goes on while work finishes"
    assert failure is not None, "a stream that is cut must not look complete"
    code, stderr = demo.end()
    assert code == 0
    assert "a clock stream ended: disconnected" in stderr
    assert "a news stream has said goodbye" in stderr
    assert stderr.index("slow request: answered") < stderr.index("lifespan.shutdown")
    assert "slow requests finished: 1" in stderr
    assert "Traceback" not in stderr

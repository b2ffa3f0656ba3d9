"""The sample applications in headless Chromium, driven through Debian's chromium-driver."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from testing.browser import chromium
from tests.frameworks.apps import common
from tests.frameworks.serving import Served

pytestmark = pytest.mark.slow

SECONDS = 10


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium"), SECONDS) as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome, server: Served) -> Chrome:
    """The browser, with the page of the sample application loaded."""
    browser.delete_all_cookies()
    browser.get(f"{server.url}/")
    assert browser.title == "lastcall sample"
    return browser


def run(page: Chrome, script: str) -> Any:
    """The value of the body of an async JavaScript function; what it throws is an AssertionError."""
    kind, value = page.execute_async_script(
        f"const done = arguments[0]; (async () => {{ {script} }})()"
        ".then(value => done(['value', value]), error => done(['error', String(error)]));"
    )
    assert kind == "value", value
    return value


def text(page: Chrome) -> str:
    return page.find_element(By.TAG_NAME, "body").text


def test_images_and_requests_share_a_connection(page: Chrome) -> None:
    """The images are as wide as the number of the client's port."""
    first = page.execute_script("return document.getElementById('first').naturalWidth")
    assert first > 1023
    second, third = run(
        page,
        """
        const image = new Image();
        image.src = "/image/second";
        await image.decode();
        const response = await fetch("/client");
        return [image.naturalWidth, (await response.json()).client[1]];
        """,
    )
    assert second == third
    protocol, reused = run(
        page,
        """
        const [entry] = performance.getEntriesByType("resource").filter(entry => entry.name.endsWith("/image/second"));
        return [entry.nextHopProtocol, entry.connectEnd - entry.connectStart];
        """,
    )
    assert (protocol, reused) == ("http/1.1", 0)


def test_fetch_post(page: Chrome) -> None:
    got = run(
        page,
        """
        const response = await fetch("/upload", {method: "POST", body: "x".repeat(3000000)});
        return [response.status, await response.json()];
        """,
    )
    assert got == [200, common.digest(b"x" * 3_000_000)]


def test_fetch_head_and_not_found(page: Chrome) -> None:
    got = run(
        page,
        """
        const head = await fetch("/json", {method: "HEAD"});
        const lost = await fetch("/nowhere");
        return [head.status, await head.text(), head.headers.get("content-type"), lost.status];
        """,
    )
    assert got == [200, "", "application/json", 404]


def test_each_piece_of_a_stream_is_there_before_the_next_is_made(page: Chrome) -> None:
    pieces = run(
        page,
        """
        const response = await fetch("/stream?gate=browser");
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        const pieces = [];
        for (;;) {
            const {value, done} = await reader.read();
            if (done) return pieces;
            pieces.push(value);
            await fetch("/gate/browser", {method: "POST"});
        }
        """,
    )
    assert pieces == [piece.decode() for piece in common.PIECES]


def test_event_source(page: Chrome) -> None:
    events = run(
        page,
        """
        const source = new EventSource("/events"), events = [];
        await new Promise((resolve, reject) => {
            source.onmessage = event => { if (events.push([event.lastEventId, event.data]) == 3) resolve(); };
            source.onerror = () => reject("the stream has failed, or ended too early");
        });
        source.close();
        return events;
        """,
    )
    assert events == [["0", "event 0"], ["1", "event 1"], ["2", "event 2"]]


def test_form_with_a_file(page: Chrome, tmp_path: Path) -> None:
    path = tmp_path / "photo.bin"
    path.write_bytes(random.Random(4).randbytes(1_500_000))
    page.find_element(By.NAME, "file").send_keys(str(path))
    page.find_element(By.TAG_NAME, "button").click()
    WebDriverWait(page, SECONDS).until(lambda page: page.current_url.endswith("/form") and text(page))
    expected = {"field": "from the form", "filename": "photo.bin", **common.digest(path.read_bytes())}
    assert json.loads(text(page)) == expected


def test_redirect_with_cookies(page: Chrome, server: Served) -> None:
    page.get(f"{server.url}/login")
    assert page.current_url == f"{server.url}/whoami"
    assert json.loads(text(page)) == common.COOKIES

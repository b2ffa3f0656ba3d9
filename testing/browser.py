"""The browser of the tests: headless Chromium, driven through Debian's chromium-driver."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root has no user namespace to be put into
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def program(*names: str) -> str:
    """The path of the first that is installed. Without one Selenium would go and download something."""
    found = next(filter(None, map(shutil.which, names)), None)
    assert found is not None, f"{names[0]} is not installed: scripts/test-deps does that"
    return found


@contextmanager
def chromium(directory: Path, seconds: float = 10.0) -> Iterator[Chrome]:
    """A browser with its profile in ``directory``, whose pages and scripts have so many seconds."""
    options = ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={directory}")
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    driver = Chrome(options=options, service=Service(program("chromedriver")))
    try:
        driver.set_page_load_timeout(seconds)
        driver.set_script_timeout(seconds)
        yield driver
    finally:
        driver.quit()

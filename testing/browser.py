"""The browser of the tests: headless Chromium, driven through Debian's chromium-driver."""

from __future__ import annotations

import shutil

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

"""``lastcall_once`` gives its names, and costs nothing before they are used."""

from __future__ import annotations

import subprocess
import sys

import lastcall_once
from lastcall_once import IdempotencyMiddleware
from lastcall_once.middleware import IdempotencyMiddleware as TheMiddleware


def test_the_middleware_has_a_short_address() -> None:
    assert IdempotencyMiddleware is TheMiddleware
    assert "IdempotencyMiddleware" in lastcall_once.__all__
    assert {name for name in dir(lastcall_once) if name in lastcall_once.__all__} == set(lastcall_once.__all__)


def test_names_are_imported_when_they_are_used() -> None:
    script = (
        "import sys, lastcall_once as once\n"
        "loaded = lambda: sorted(n for n in sys.modules if n.startswith('lastcall_once.'))\n"
        "print(loaded())\n"
        "once.IdempotencyMiddleware\n"
        "print('lastcall_once.middleware' in loaded(), 'lastcall_once.guard' in loaded())\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == ["[]", "True False"]

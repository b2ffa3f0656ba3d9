"""What a reload may change."""

from __future__ import annotations

from typing import Any

import pytest

from lastcall.config import Config
from lastcall.config.options import OPTIONS
from lastcall.supervisor.changes import ADDRESSES, REFUSED, RESTART, changes


def test_each_option_of_the_parent_is_an_option_and_is_named_once() -> None:
    named = [*ADDRESSES, *REFUSED, *RESTART]
    assert len(set(named)) == len(named)
    assert set(named) <= set(OPTIONS)
    groups = {name for name, option in OPTIONS.items() if option.group in ("Process", "Listening", "Development")}
    workers = {"loop", "gc_freeze", "driver"}  # the workers' alone
    assert groups - set(named) <= workers, "what the process is, listens on and watches is decided here"


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({"port": 1}, {"port": 2}, "addresses have changed from 127.0.0.1:1 to 127.0.0.1:2"),
        ({"port": 1}, {"uds": "/tmp/x"}, "addresses"),
        ({}, {"user": "nobody"}, "user cannot change"),
        ({"umask": "022"}, {"umask": "077", "group": "x"}, "group, umask cannot change"),
    ],
)
def test_refused(before: dict[str, Any], after: dict[str, Any], says: str) -> None:
    assert says in changes(Config("a:a", **before), Config("a:a", **after)).refusal


def test_kept_and_said() -> None:
    found = changes(
        Config("a:a", supervise=True),
        Config("a:a", supervise=True, pidfile="/tmp/x", backlog=7, control_socket="/tmp/y"),
    )
    assert found.refusal == ""
    assert found.warning == "Needs a restart, and stays as it was: backlog, control_socket, pidfile."


def test_what_comes_with_the_new_workers_needs_no_word() -> None:
    new = {"workers": 4, "timeout_graceful_shutdown": 3, "health_path": "/h", "canary": True, "headers": [("a", "b")]}
    found = changes(Config("a:a", supervise=True), Config("a:a", **new))  # type: ignore[arg-type]
    assert (found.refusal, found.warning) == ("", "")

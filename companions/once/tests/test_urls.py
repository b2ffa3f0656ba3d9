"""``store_from_url``: which store a URL names, and what is said about one that names none."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from lastcall_once.stores import store_from_url
from lastcall_once.stores.memory import MemoryStore
from lastcall_once.stores.sqlite import SQLiteStore


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///once.db", ("once.db", "normal", 5.0)),
        ("sqlite:////var/lib/once.db", ("/var/lib/once.db", "normal", 5.0)),
        ("SQLite:///data/a%20b.db?synchronous=FULL&timeout=0.5", ("data/a b.db", "full", 0.5)),
    ],
)
def test_sqlite(url: str, expected: tuple[str, str, float]) -> None:
    store: Any = store_from_url(url)
    assert isinstance(store, SQLiteStore)
    found: Any = store
    assert (str(found._path), found._synchronous, found._timeout) == expected


@pytest.mark.parametrize("url", ["memory:", "memory://", "MEMORY:"])
def test_memory(url: str) -> None:
    assert isinstance(store_from_url(url), MemoryStore)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://h:6379/0", "RedisStore"),
        ("rediss://h/0", "RedisStore"),
        ("postgresql://h/db", "PostgresStore"),
        ("postgres://h/db", "PostgresStore"),
    ],
)
def test_servers(url: str, name: str) -> None:
    assert type(store_from_url(url)).__name__ == name


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "the scheme of this one is none"),
        ("once.db", "the scheme of this one is none"),
        ("mysql://u:secret@h/db", "the scheme of this one is 'mysql'"),
        ("u:secret@h", "the scheme of this one is 'u'"),
        ("sqlite://once.db", "four slashes"),
        ("sqlite:once.db", "four slashes"),
        ("sqlite:///", "four slashes"),
        ("sqlite:///:memory:", "four slashes"),
        ("sqlite:///a/", "four slashes"),
        ("sqlite:///a%00b", "four slashes"),
        ("sqlite:///a.db?synchronous=off", "synchronous=off is no option"),
        ("sqlite:///a.db?timeout=0", "timeout=0 is no option"),
        ("sqlite:///a.db?timeout=nan", "timeout=nan is no option"),
        ("sqlite:///a.db?cache=shared", "cache=shared is no option"),
        ("memory:a", "just memory:"),
    ],
)
def test_what_names_no_store(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        store_from_url(url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "lastcall_once.stores.redis":
                raise ModuleNotFoundError("No module named 'redis'", name="redis")

    monkeypatch.delitem(sys.modules, "lastcall_once.stores.redis", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(ImportError, match=r"pip install 'lastcall-once\[redis\]'"):
        store_from_url("redis://h")

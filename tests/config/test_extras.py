"""``--static``: what is refused before anything starts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from lastcall import Config
from lastcall.base.errors import ConfigError


def static(*values: str) -> Any:
    return Config("main:app", static=values).options.app.static


def test_prefixes_and_absolute_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a=b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert static("/static/=a=b", "/=.") == (("/static", f"{tmp_path}/a=b"), ("", str(tmp_path)))


@pytest.mark.parametrize("value", ["static=.", "/static", "/static=", "/a//b=.", "/../x=.", "/a?b=.", "=."])
def test_what_is_no_prefix_and_directory(value: str) -> None:
    with pytest.raises(ConfigError, match="static"):
        static(value)


def test_a_directory_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a directory that exists"):
        static(f"/static={tmp_path}/missing")


def test_a_prefix_twice() -> None:
    with pytest.raises(ConfigError, match="each prefix only once"):
        static("/a=.", "/a/=/")


def test_the_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'lastcall\[static\]'"):
        static("/a=.")

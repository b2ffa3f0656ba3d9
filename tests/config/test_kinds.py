"""What each kind of value reads, what it refuses, and what it says it would have taken."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.config.kinds import (
    Anything,
    Choice,
    Count,
    FilePath,
    Kind,
    LogLevel,
    LoopFactory,
    Seconds,
    Size,
    Switch,
    Text,
    UnusableValueError,
)


def loop_factory() -> None:
    """Something callable."""


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Seconds(), "10", 10.0),
        (Seconds(), "0.25", 0.25),
        (Seconds(), 3, 3.0),
        (Seconds(), 0, 0.0),
        (Seconds(optional=True), "none", math.inf),
        (Seconds(optional=True), " None ", math.inf),
        (Seconds(optional=True), None, math.inf),
        (Seconds(optional=True), math.inf, math.inf),
        (Count(), "0", 0),
        (Count(), " 42 ", 42),
        (Count(least=1), 1, 1),
        (Count(optional=True), "none", None),
        (Count(optional=True), None, None),
        (Size(), "65536", 65536),
        (Size(), "64K", 65536),
        (Size(), "64k", 65536),
        (Size(), "1M", 1024**2),
        (Size(most=2**63 - 1), "3G", 3 * 1024**3),
        (Size(), 17, 17),
        (Size(optional=True), "none", None),
        (Switch(), True, True),
        (Switch(), "yes", True),
        (Switch(), "OFF", False),
        (Switch(), "0", False),
        (Switch(optional=True), None, None),
        (Choice(words=("auto", "on")), "on", "on"),
        (LogLevel(), "INFO", "info"),
        (LogLevel(), "trace", "trace"),
        (LogLevel(), "15", 15),
        (LogLevel(), 15, 15),
        (LoopFactory(), "none", "none"),
        (LoopFactory(), "package.module:factory", "package.module:factory"),
        (LoopFactory(), loop_factory, loop_factory),
        (FilePath(), Path("x", "y"), "x/y"),
        (Text(), "", ""),
        (Anything(), Path("log.yaml"), "log.yaml"),
    ],
)
def test_reads(kind: Kind, value: object, expected: object) -> None:
    result = kind.read(value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Seconds(optional=True), "-1"),
        (Seconds(optional=True), -0.5),
        (Seconds(optional=True), "nan"),
        (Seconds(optional=True), math.nan),
        (Seconds(optional=True), "inf"),
        (Seconds(optional=True), "10s"),
        (Seconds(optional=True), ""),
        (Seconds(optional=True), True),
        (Seconds(optional=True), [1]),
        (Seconds(optional=True), 10**400),
        (Seconds(optional=True, positive=True), 0),
        (Seconds(optional=True, positive=True), "0.0"),
        (Seconds(), "none"),
        (Seconds(), None),
        (Seconds(), math.inf),
        (Count(), -1),
        (Count(), "-1"),
        (Count(), "+1"),
        (Count(), "1_000"),
        (Count(), "0x10"),
        (Count(), "٣"),
        (Count(), 1.0),
        (Count(), True),
        (Count(), None),
        (Count(), "none"),
        (Count(), 2**31),
        (Count(), "9" * 5000),
        (Count(least=1, optional=True), 0),
        (Count(most=65535), "65536"),
        (Size(), "1KB"),
        (Size(), "1.5M"),
        (Size(), "K"),
        (Size(least=1), "0K"),
        (Size(), "2G"),
        (Switch(), "maybe"),
        (Switch(), 1),
        (Switch(), None),
        (Choice(words=("auto", "on")), "ON"),
        (Choice(words=("auto", "on")), None),
        (LogLevel(), "loud"),
        (LogLevel(), 0),
        (LogLevel(), -5),
        (LogLevel(), True),
        (LoopFactory(), "zuvloop"),
        (LoopFactory(), "module:"),
        (LoopFactory(), "mod ule:factory"),
        (LoopFactory(), 3),
        (FilePath(), ""),
        (FilePath(), 3),
        (FilePath(), b"bytes"),
        (FilePath(), "nul\0"),
        (FilePath(existing=True), "/nowhere/at/all"),
        (Text(filled=True), ""),
        (Text(), 3),
        (Text(), "nul\0"),
    ],
)
def test_refuses(kind: Kind, value: object) -> None:
    with pytest.raises(UnusableValueError) as caught:
        kind.read(value)
    assert caught.value.expected.startswith(kind.expected)


def test_an_optional_number_says_that_none_would_do() -> None:
    with pytest.raises(UnusableValueError, match=r"or none$"):
        Seconds(optional=True).read("soon")
    with pytest.raises(UnusableValueError, match=r"0 or more$"):
        Seconds().read("soon")


def test_an_existing_file_is_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.touch()
    assert FilePath(existing=True).read(file) == str(file)
    with pytest.raises(UnusableValueError):
        FilePath(existing=True).read(tmp_path)


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_seconds_read_their_own_spelling(seconds: float) -> None:
    assert Seconds().read(repr(seconds)) == seconds


@given(st.text(max_size=12))
def test_no_text_makes_a_kind_fail_otherwise_than_by_refusing(text: str) -> None:
    for kind in (Seconds(optional=True), Count(), Size(), Switch(), LogLevel(), LoopFactory(), FilePath()):
        with suppress(UnusableValueError):
            kind.read(text)

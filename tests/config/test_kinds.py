"""What each kind of value reads, what it refuses, and what it says it would have taken."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.config.kinds import (
    LONGEST_TIME,
    Anything,
    Choice,
    Count,
    FilePath,
    Fraction,
    Host,
    Kind,
    LogLevel,
    LoopFactory,
    Mode,
    OutputFile,
    PathPrefix,
    Seconds,
    Size,
    SocketPath,
    Switch,
    Text,
    UnusableValueError,
    Workers,
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
        (SocketPath(), "app.sock", "app.sock"),
        (SocketPath(optional=True), None, None),
        (Host(), "0.0.0.0", "0.0.0.0"),
        (Host(), "localhost", "localhost"),
        (Host(), "::", "::"),
        (Host(), "::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        (Host(), "fe80::1%eth0", "fe80::1%eth0"),
        (OutputFile(), "/dev/null", "/dev/null"),
        (OutputFile(optional=True), None, None),
        (PathPrefix(), "/health", "/health"),
        (PathPrefix(), "/health/", "/health"),
        (PathPrefix(), "/a/b//", "/a/b"),
        (PathPrefix(), "//a", "//a"),
        (PathPrefix(), "/gesundheit-ü", "/gesundheit-ü"),
        (PathPrefix(), "", ""),
        (PathPrefix(optional=True), None, ""),
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
        (SocketPath(), "unix:/run/app.sock"),
        (SocketPath(), ""),
        (Host(), ""),
        (Host(), None),
        (Host(), "two words"),
        (Host(), "127.0.0.1:8000"),
        (Host(), "[::1]"),
        (Host(), "[::1]:8000"),
        (Host(), "http://127.0.0.1"),
        (Host(), "unix:/run/app.sock"),
        (Host(), "nul\0"),
        (OutputFile(), "/nowhere/report.json"),
        (OutputFile(), "/dev/null/report.json"),
        (OutputFile(), "/"),
        (OutputFile(), ""),
        (OutputFile(), "nul\0"),
        (OutputFile(), 3),
        (OutputFile(), None),
        (PathPrefix(), "/"),
        (PathPrefix(), "//"),
        (PathPrefix(), "health"),
        (PathPrefix(), "none"),
        (PathPrefix(), "http://localhost/health"),
        (PathPrefix(), "/health?x"),
        (PathPrefix(), "/health#x"),
        (PathPrefix(), "/he alth"),
        (PathPrefix(), "/health "),
        (PathPrefix(), " /health"),
        (PathPrefix(), "/he\talth"),
        (PathPrefix(), "/health\r\n"),
        (PathPrefix(), "/health\0"),
        (PathPrefix(), "/health\x7f"),
        (PathPrefix(), "/health\x85"),
        (PathPrefix(), "/health\xa0"),
        (PathPrefix(), "/health\udcff"),
        (PathPrefix(), b"/health"),
        (PathPrefix(), True),
        (PathPrefix(), None),
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
    for optional in (True, False):
        with pytest.raises(UnusableValueError) as caught:
            Seconds(optional=optional).read("soon")
        assert caught.value.expected.endswith("none") is optional


def test_an_existing_file_is_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.touch()
    assert FilePath(existing=True).read(file) == str(file)
    with pytest.raises(UnusableValueError):
        FilePath(existing=True).read(tmp_path)


@pytest.mark.parametrize("value", [LONGEST_TIME + 1, 1e10, "1e10", 1e300])
def test_a_time_that_no_clock_can_take(value: object) -> None:
    for kind in (Seconds(), Seconds(optional=True, positive=True)):
        with pytest.raises(UnusableValueError) as caught:
            kind.read(value)
        assert f"{LONGEST_TIME:.0f}" in caught.value.expected


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that any user may look into, other than pytest's."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    place.chmod(0o755)
    shutil.rmtree(place)


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """For root they mean nothing: be somebody else for a moment."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_to_write_is_found_from_wherever_the_application_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert OutputFile().read("report.json") == str(tmp_path / "report.json")
    assert OutputFile().read(Path("report.json")) == str(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == [], "a look, and no more"


def test_a_file_to_write_in_a_directory_that_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UnusableValueError):
        OutputFile().read("report.json")
    assert OutputFile().read(tmp_path / "report.json") == str(tmp_path / "report.json")


def test_a_directory_is_no_file_to_write(tmp_path: Path) -> None:
    for path in (tmp_path, f"{tmp_path}/", f"{tmp_path}/report.json/", f"{tmp_path}/.."):
        with pytest.raises(UnusableValueError):
            OutputFile().read(path)


def test_a_file_to_write_has_to_be_one_that_permissions_allow(open_place: Path) -> None:
    new, ours, theirs = (open_place / name for name in ("new.json", "ours.json", "theirs.json"))
    ours.touch()
    ours.chmod(0o666)
    theirs.touch()
    theirs.chmod(0o444)
    open_place.chmod(0o555)
    with bound_by_permissions():
        assert OutputFile().read(ours) == str(ours), "it is written in place, as a container's /dev/termination-log is"
        for path in (new, theirs):
            with pytest.raises(UnusableValueError):
                OutputFile().read(path)
    open_place.chmod(0o777)
    with bound_by_permissions():
        assert OutputFile().read(new) == str(new)


@given(st.text(max_size=12))
def test_every_prefix_is_read_into_one_that_a_path_can_begin_with(text: str) -> None:
    with suppress(UnusableValueError):
        prefix = PathPrefix().read(text)
        assert isinstance(prefix, str)
        assert prefix == "" or (prefix[0] == "/" and prefix[-1] != "/" and set(prefix).isdisjoint(" ?#\t\r\n\0"))
        assert PathPrefix().read(prefix) == prefix


@given(st.floats(min_value=0, max_value=LONGEST_TIME))
def test_seconds_read_their_own_spelling(seconds: float) -> None:
    assert Seconds().read(repr(seconds)) == seconds


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Workers(), "4", 4),
        (Workers(), 1, 1),
        (Workers(), " Auto ", "auto"),
        (Workers(optional=True), None, None),
        (Fraction(), "0.1", 0.1),
        (Fraction(), " .5 ", 0.5),
        (Fraction(optional=True), "none", None),
        (Mode(), "027", 0o27),
        (Mode(), "0o27", 0o27),
        (Mode(), "0", 0),
        (Mode(), 0o777, 0o777),
        (Mode(optional=True), None, None),
    ],
)
def test_kinds_of_the_fleet(kind: Kind, value: object, expected: object) -> None:
    assert kind.read(value) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((Workers(), value) for value in (0, "0", -1, True, 1.5, "automatic", "", [2])),
        *(
            (Fraction(), value)
            for value in (0, 1, "0", "1", "10%", "-0.1", "nan", "inf", True, 10**400, "0.1_0", "\u0660.\u0661")
        ),
        *((Mode(), value) for value in ("8", "1777", "00027", "rwx", "", "-1", "0x1f", -1, 0o1000, True, 0.5)),
    ],
)
def test_kinds_of_the_fleet_refuse(kind: Kind, value: object) -> None:
    with pytest.raises(UnusableValueError):
        kind.read(value)


@given(st.text(max_size=12))
def test_no_text_makes_a_kind_fail_otherwise_than_by_refusing(text: str) -> None:
    for kind in (Seconds(optional=True), Count(), Size(), Switch(), LogLevel(), LoopFactory(), FilePath()):
        with suppress(UnusableValueError):
            kind.read(text)

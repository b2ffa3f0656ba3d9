"""Listeners, response headers and lists of strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.base.options import BindSpec
from lastcall.config.kinds import UnusableValueError
from lastcall.config.lists import Binds, Globs, Headers, Smokes, Strings, parse_bind, parse_header


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", BindSpec("tcp", host="127.0.0.1", port=8000)),
        ("example.org:0", BindSpec("tcp", host="example.org", port=0)),
        ("[::1]:65535", BindSpec("tcp", host="::1", port=65535)),
        ("[fe80::1%eth0]:80", BindSpec("tcp", host="fe80::1%eth0", port=80)),
        ("unix:/run/x.sock", BindSpec("unix", path="/run/x.sock")),
        ("unix:x.sock", BindSpec("unix", path="x.sock")),
        ("unix:/run/x.sock,mode=0660", BindSpec("unix", path="/run/x.sock", mode=0o660)),
        ("unix:/run/x.sock,mode=600", BindSpec("unix", path="/run/x.sock", mode=0o600)),
        ("unix:/run/a,b:c.sock", BindSpec("unix", path="/run/a,b:c.sock")),
        ("fd://3", BindSpec("fd", fd=3)),
    ],
)
def test_a_listener(text: str, bind: BindSpec) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "HOST:PORT"),
        ("8000", "HOST:PORT"),
        ("localhost", "HOST:PORT"),
        (":8000", "0.0.0.0"),
        ("::1", "HOST:PORT"),
        ("::1:8000", "HOST:PORT"),
        ("[localhost]:8000", "HOST:PORT"),
        ("[]:8000", "HOST:PORT"),
        ("http://127.0.0.1:8000", "HOST:PORT"),
        ("two words:80", "HOST:PORT"),
        ("127.0.0.1:", "a port from 0 to 65535"),
        ("127.0.0.1:65536", "a port from 0 to 65535"),
        ("127.0.0.1:-1", "a port from 0 to 65535"),
        ("127.0.0.1:http", "a port from 0 to 65535"),
        ("unix:", "unix:PATH"),
        ("unix://run/x.sock", "unix:PATH"),
        ("unix:unix:/run/x.sock", "unix:PATH"),
        ("unix:,mode=0660", "unix:PATH"),
        ("unix:/run/x.sock,mode=rw", "octal"),
        ("unix:/run/x.sock,mode=0888", "octal"),
        ("unix:/run/x.sock,mode=10660", "octal"),
        ("unix:/run/x.sock,mode=", "octal"),
        ("fd://", "fd://N"),
        ("fd://-1", "fd://N"),
        ("fd:3", "fd://N"),
    ],
)
def test_no_listener(text: str, hint: str) -> None:
    with pytest.raises(UnusableValueError) as caught:
        parse_bind(text)
    assert hint in caught.value.expected


@given(st.text(max_size=30))
def test_every_text_is_a_listener_or_refused(text: str) -> None:
    for prefix in ("", "unix:", "fd://", "[", "unix:/x,mode="):
        try:
            bind = parse_bind(prefix + text)
        except UnusableValueError:
            continue
        assert bind.kind in ("tcp", "unix", "fd")
        assert 0 <= bind.port <= 65535
        assert bind.mode is None or 0 <= bind.mode <= 0o777


def test_several_listeners() -> None:
    one, two = BindSpec("tcp", host="a", port=0), BindSpec("fd", fd=4)
    assert Binds().read("a:0") == (one,)
    assert Binds().read(["a:0", "fd://4", "a:0"]) == (one, two, one)
    assert Binds(optional=True).read([]) is None
    assert Binds().split("a:0\tfd://4 ") == ["a:0", "fd://4"]


@pytest.mark.parametrize("text", ["a:80", "unix:/x", "fd://4"])
def test_the_same_listener_twice(text: str) -> None:
    with pytest.raises(UnusableValueError) as caught:
        Binds().read([text, text])
    assert caught.value.value == text


def test_the_wrong_one_of_several_is_named() -> None:
    with pytest.raises(UnusableValueError) as caught:
        Binds().read(["a:80", "b"])
    assert caught.value.value == "b"


@pytest.mark.parametrize(
    ("item", "pair"),
    [
        ("X-A:b", (b"x-a", b"b")),
        ("X-A: b c ", (b"x-a", b"b c")),
        ("Link: <http://a:80/>", (b"link", b"<http://a:80/>")),
        ("x:", (b"x", b"")),
        ("x: café", (b"x", b"caf\xe9")),
        (("X-A", "b"), (b"x-a", b"b")),
        (["X-A", "b"], (b"x-a", b"b")),
        ((b"X-A", b"\xff"), (b"x-a", b"\xff")),
    ],
)
def test_a_header(item: object, pair: tuple[bytes, bytes]) -> None:
    assert parse_header(item) == pair


@pytest.mark.parametrize(
    "item",
    [
        "no colon",
        ": value",
        "na me: value",
        "name : value",
        "näme: value",
        "x: a\r\ny: b",
        "x: a\nb",
        "x: a\0b",
        "x: \u20ac",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "Upgrade: h2c",
        ("x",),
        ("x", "y", "z"),
        ("x", 3),
        3,
        None,
        b"x:y",
    ],
)
def test_no_header(item: object) -> None:
    with pytest.raises(UnusableValueError):
        parse_header(item)


def test_several_headers() -> None:
    assert Headers().read([("A", "1"), "b: 2"]) == ((b"a", b"1"), (b"b", b"2"))
    assert Headers().read("a: 1") == ((b"a", b"1"),)
    assert Headers().read([]) == ()
    assert Headers().split("a: 1 2\n\nb: 3\n") == ["a: 1 2", "b: 3"]


def test_strings() -> None:
    assert Strings().read("src") == ("src",)
    assert Strings().read(["src", "lib"]) == ("src", "lib")
    for wrong in (3, [3]):
        with pytest.raises(UnusableValueError):
            Strings().read(wrong)


def test_globs() -> None:
    assert Globs().read("/events/*") == ("/events/*",)
    assert Globs().read(["/events", "*.log", "*", "/a[bc]?"]) == ("/events", "*.log", "*", "/a[bc]?")
    assert Globs().read([]) == ()
    assert Globs(optional=True).read(None) == ()
    assert Globs().split("/a\t*/b\n /c ") == ["/a", "*/b", "/c"]
    assert (Globs().show(()), Globs().show(("/a",))) == ("none", "('/a',)")


@pytest.mark.parametrize("glob", ["", "events", " /events", "?events", "[/]events", "\0", "none"])
def test_a_glob_that_is_none_of_a_path(glob: str) -> None:
    for given_so in (glob, ["/a", glob]):
        with pytest.raises(UnusableValueError) as caught:
            Globs().read(given_so)
        assert caught.value.value == glob


@pytest.mark.parametrize("value", [3, [3], b"/events", None])
def test_no_globs(value: object) -> None:
    with pytest.raises(UnusableValueError):
        Globs().read(value)


# -- Smoke checks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("/health", ("/health", 200)),
        ("/admin=401", ("/admin", 401)),
        ("/search?page=2", ("/search?page=2", 200)),
        ("/search?page=2000", ("/search?page=2000", 200)),
        ("/search?page=2=204", ("/search?page=2", 204)),
        ("/a=b", ("/a=b", 200)),
        ("/a=", ("/a=", 200)),
    ],
)
def test_a_smoke_check(text: str, check: tuple[str, int]) -> None:
    assert Smokes().read(text) == (check,)
    assert Smokes().read([text, "/x"]) == (check, ("/x", 200))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "health",
        "http://a/health",
        "/a b",
        "/a\r\nhost: b",
        "/ä",
        "/a#b",
        "/a=99",
        "/a=600",
        "/a=2000",
        "=200",
        "/a=" + "9" * 5000,
    ],
)
def test_what_is_no_smoke_check(text: str) -> None:
    with pytest.raises(UnusableValueError):
        Smokes().read([text])


def test_no_smoke_checks() -> None:
    assert Smokes(optional=True).read(None) == ()

"""Kinds of options that may be given several times: listeners, response headers, globs, plain strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import ClassVar, TypeVar

from lastcall.base.options import BindSpec
from lastcall.config.kinds import Kind, UnusableValueError, is_host

BIND_SYNTAX = "HOST:PORT, [IPV6]:PORT, unix:PATH, unix:PATH,mode=0660 or fd://N"

T = TypeVar("T")
R = TypeVar("R")

# RFC 9110 5.6.2 (token) and 5.5 (field values; surrounding whitespace is not part of the value).
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

# The server frames every answer itself; a fixed header of this kind would contradict it on every response.
_OF_THE_SERVER = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

_MODE = re.compile(r"(?P<path>.*),mode=(?P<mode>[^,]*)")
_OCTAL = re.compile(r"[0-7]{3}|0o?[0-7]{3}")
_PORT = re.compile(r"[0-9]{1,5}")
_STATUS = re.compile(r"[1-5][0-9]{2}")


class Strings(Kind):
    """One string or several. ``repeatable`` says whether the flag may be given again."""

    repeatable: bool = True
    placeholder: str = "TEXT"

    @property
    def expected(self) -> str:
        return "a string or a list of strings"

    @property
    def annotation(self) -> str:
        return "str | Sequence[str]"

    @property
    def metavar(self) -> str:
        return self.placeholder

    def convert(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, Iterable):
            raise self.refusal()
        strings = tuple(value)
        if not all(isinstance(item, str) for item in strings):
            raise self.refusal()
        return strings


class Binds(Kind):
    """Listeners, each given in the syntax of ``--bind``; see :func:`parse_bind`."""

    repeatable: bool = True

    @property
    def expected(self) -> str:
        return BIND_SYNTAX

    @property
    def annotation(self) -> str:
        return "str | Sequence[str]"

    @property
    def metavar(self) -> str:
        return "ADDRESS"

    def convert(self, value: object) -> tuple[BindSpec, ...] | None:
        texts = Strings().convert(value)
        binds: list[BindSpec] = []
        for text in texts:
            bind = _blaming(text, parse_bind)
            # Port 0 asks for any free port, so two of them are two listeners.
            if bind in binds and not (bind.kind == "tcp" and bind.port == 0):
                raise UnusableValueError("each listener only once", text)
            binds.append(bind)
        return tuple(binds) or None


class Smokes(Kind):
    """Smoke checks: ``PATH`` or ``PATH=STATUS``, read into pairs of path and status.

    A path may have a query. One that ends like a status needs the status too: ``/search?size=200=200``.
    """

    repeatable: bool = True

    nothing: ClassVar[object] = ()

    @property
    def expected(self) -> str:
        return "PATH or PATH=STATUS, as in /health or /admin=401"

    @property
    def annotation(self) -> str:
        return "str | Sequence[str]"

    @property
    def metavar(self) -> str:
        return "PATH[=STATUS]"

    def convert(self, value: object) -> tuple[tuple[str, int], ...]:
        return tuple(_blaming(text, self._check) for text in Strings().convert(value))

    def _check(self, text: str) -> tuple[str, int]:
        path, equals, status = text.rpartition("=")
        wanted = int(status) if _STATUS.fullmatch(status) else 0
        if not equals or not (status.isascii() and status.isdigit()) or ("?" in path and not wanted):
            path, wanted = text, 200  # "=" may stand in a query, too: /search?page=2
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path or "#" in path:
            raise UnusableValueError(self.expected, text)
        if not wanted:
            raise UnusableValueError("a status from 100 to 599", text)
        return path, wanted


class Headers(Kind):
    """Response headers: ``NAME:VALUE`` in text, pairs of str or bytes in Python. Read into lower-case bytes pairs."""

    repeatable: bool = True

    nothing: ClassVar[object] = ()

    @property
    def expected(self) -> str:
        return "NAME:VALUE"

    @property
    def annotation(self) -> str:
        return "Sequence[str | tuple[str, str] | tuple[bytes, bytes]]"

    @property
    def metavar(self) -> str:
        return "NAME:VALUE"

    def convert(self, value: object) -> tuple[tuple[bytes, bytes], ...]:
        if isinstance(value, str):
            value = (value,)
        if not isinstance(value, Iterable):
            raise self.refusal()
        return tuple(_blaming(item, parse_header) for item in value)

    def split(self, text: str) -> list[str]:
        """One header per line: spaces belong to values."""
        return [line for line in text.splitlines() if line.strip()]

    def show(self, value: object) -> str:
        return "none" if not value else str(value)


class Globs(Kind):
    """Patterns of decoded paths, as :mod:`fnmatch` has them; ``*`` matches ``/`` too."""

    repeatable: bool = True

    nothing: ClassVar[object] = ()

    @property
    def expected(self) -> str:
        return "a glob of paths, which begins with / or *"

    @property
    def annotation(self) -> str:
        return "str | Sequence[str]"

    @property
    def metavar(self) -> str:
        return "GLOB"

    def convert(self, value: object) -> tuple[str, ...]:
        globs = Strings().convert(value)
        for glob in globs:
            if not glob.startswith(("/", "*")):
                raise UnusableValueError(self.expected, glob)
        return globs

    def show(self, value: object) -> str:
        return "none" if not value else str(value)


def parse_bind(text: str) -> BindSpec:
    """Read one listener address.

    ``HOST:PORT`` and ``[IPV6]:PORT`` (port 0: any free one), ``unix:PATH`` with an optional ``,mode=OCTAL`` at the end,
    ``fd://N`` for an inherited socket. Raises :class:`UnusableValueError`.
    """
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"))
    if text.startswith("fd:"):
        number = text.removeprefix("fd://")
        if not re.fullmatch(r"[0-9]{1,9}", number):
            raise UnusableValueError("fd://N with the number of an inherited descriptor")
        return BindSpec("fd", fd=int(number))
    return _parse_tcp(text)


def parse_port(text: str) -> int | None:
    """Return the port number that ``text`` spells, or None."""
    if not _PORT.fullmatch(text) or int(text) > 65535:
        return None
    return int(text)


def parse_header(item: object) -> tuple[bytes, bytes]:
    """Read one response header, ``"Name: value"`` or a pair. Raises :class:`UnusableValueError`."""
    pair: tuple[object, ...]
    if isinstance(item, str):
        name, colon, value = item.partition(":")
        if not colon:
            raise UnusableValueError("NAME:VALUE")
        pair = (name, value)
    elif isinstance(item, Iterable) and not isinstance(item, bytes):
        pair = tuple(item)
    else:
        pair = ()
    if len(pair) != 2:
        raise UnusableValueError("pairs of a name and a value")
    raw_name, raw_value = (_latin1(part) for part in pair)
    raw_name = raw_name.lower()
    raw_value = raw_value.strip(b" \t")
    if not _TOKEN.fullmatch(raw_name):
        raise UnusableValueError("a header name of letters, digits and !#$%&'*+-.^_`|~ (RFC 9110)")
    if not _FIELD_VALUE.fullmatch(raw_value):
        raise UnusableValueError("a header value without control characters (RFC 9110)")
    if raw_name in _OF_THE_SERVER:
        raise UnusableValueError(f"another header: {raw_name.decode()} is the server's own business")
    return raw_name, raw_value


def _blaming(item: T, read: Callable[[T], R]) -> R:
    """Return ``read(item)``; an error of it names the item rather than the whole list."""
    try:
        return read(item)
    except UnusableValueError as error:
        raise UnusableValueError(error.expected, item) from None


def _latin1(part: object) -> bytes:
    if isinstance(part, bytes):
        return part
    if not isinstance(part, str):
        raise UnusableValueError("header names and values that are str or bytes")
    try:
        return part.encode("latin-1")
    except UnicodeEncodeError:
        raise UnusableValueError("header names and values in Latin-1") from None


def _parse_unix(rest: str) -> BindSpec:
    path, mode = rest, None
    if match := _MODE.fullmatch(rest):
        path = match["path"]
        if not _OCTAL.fullmatch(match["mode"]):
            raise UnusableValueError("a mode of octal digits, as in unix:/run/app.sock,mode=0660")
        mode = int(match["mode"].removeprefix("0o"), 8)
    if not path or path.startswith(("//", "unix:")) or "\0" in path:
        raise UnusableValueError("unix:PATH, as in unix:/run/app.sock")
    return BindSpec("unix", path=path, mode=mode)


def _parse_tcp(text: str) -> BindSpec:
    host, colon, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host) != bracketed:
        # Includes a bare IPv6 address, where the last group cannot be told from a port.
        raise UnusableValueError(BIND_SYNTAX)
    if bracketed:
        host = host[1:-1]
    elif not host:
        raise UnusableValueError("a host before the port: 0.0.0.0 is every IPv4 interface, [::] every IPv6 one")
    if not is_host(host):
        raise UnusableValueError(BIND_SYNTAX)
    port = parse_port(port_text)
    if port is None:
        raise UnusableValueError("a port from 0 to 65535")
    return BindSpec("tcp", host=host, port=port)

"""Static files (``--static``), as an ASGI application around the other one.

servestatic knows media types, caching headers, precompressed files and how to send a file, by ``sendfile`` or not.
Which file a path means is decided here, as is what a conditional or a partial request asks for: see
``docs/explanation/architecture.md`` for why.

Which files there are is looked up once, at the start: a path is a key of a dict, so there is nothing that a path from
outside could lead to. At each request the file's size and time are compared with what its headers say.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Final
from wsgiref.headers import Headers

from servestatic.asgi import FileServerASGI
from servestatic.base import ServeStaticBase
from servestatic.responders import NotARegularFileError, StaticFile

from lastcall.base.errors import ConfigError
from lastcall.base.types import ASGIApp, Message, Receive, Scope, Send

BLOCK: Final = 64 * 1024
"""Bytes that are read at a time where the server cannot send a file by itself."""

_ENCODED: Final = (".gz", ".br", ".zstd")
_RANGE: Final = re.compile(rb"bytes=(?:[0-9]{1,19}-[0-9]{0,19}|-[0-9]{1,19})")
_ETAG: Final = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_CONDITIONS: Final = (b"if-none-match", b"if-modified-since", b"if-range", b"range")


class _Library(ServeStaticBase):  # type: ignore[misc]  # it has no types
    """servestatic's table of files, without its own search: that follows links in circles and stops at broken ones."""

    def initialize(self) -> None:
        """Nothing to do: there is no application in it."""

    def __call__(self) -> None:
        raise NotImplementedError


class _Entry:
    """One file: what servestatic made of it, and the state of the files on which that depends."""

    __slots__ = ("file", "path", "seen", "tags", "url")

    def __init__(self, library: _Library, url: str, path: str) -> None:
        self.url = url
        self.path = path
        self.seen = _state(path)
        self.file: StaticFile = library.get_static_file(path, url)
        # The same tag for a file and its compressed variants would join parts of both (RFC 9110 8.8.3.3).
        tag = (self.file.etag or "").encode("latin-1")
        codings = [encoding.encode() for encoding, _, _ in self.file.alternatives if encoding]
        self.tags = {b"": tag} | {coding: tag[:-1] + b"-" + coding + b'"' for coding in codings} if tag else {}


class StaticFiles:
    """An ASGI application that answers for ``directories`` (prefix and path), and else calls ``app``.

    What is below a prefix never reaches the application: a path that is no file is 404. The prefix "" (``/``) is the
    exception: there the application has what is no file.

    Raises ConfigError if a directory cannot be read.
    """

    def __init__(self, app: ASGIApp, directories: tuple[tuple[str, str], ...]) -> None:
        self.app = app
        self._library = _Library(None, allow_all_origins=False, add_headers_function=_add_headers)
        self._entries: dict[str, _Entry] = {}
        # A longer prefix is the closer one, and comes last so that it wins.
        for prefix, directory in sorted(directories, key=lambda pair: len(pair[0])):
            hidden = [url for url in self._entries if url.startswith(prefix + "/")] if prefix else []
            for url in hidden:
                del self._entries[url]
            try:
                for path in _files(directory):
                    url = prefix + "/" + os.path.relpath(path, directory)
                    self._add(url, path)
            except OSError as exc:
                raise ConfigError(
                    "--static", f"{prefix or '/'}={directory}", f"a directory that can be read ({exc.strerror})"
                ) from exc
        self._prefixes = tuple(prefix + "/" for prefix, _ in directories if prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a file, or answer 404, or run the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        root: str = scope.get("root_path", "").rstrip("/")
        if root and path.startswith(root + "/"):
            path = path[len(root) :]
        entry = self._entries.get(path)
        if entry is not None:
            entry = self._current(entry)
        if entry is not None:
            await self._send_file(entry, scope, receive, send)
        elif path.startswith(self._prefixes):
            await _not_found(scope["method"], send)
        else:
            await self.app(scope, receive, send)

    def _add(self, url: str, path: str) -> None:
        try:
            self._entries[url] = _Entry(self._library, url, path)
        except (OSError, NotARegularFileError):  # gone meanwhile, or nothing that can be read from start to end
            self._entries.pop(url, None)

    def _current(self, entry: _Entry) -> _Entry | None:
        """The entry as the file is now; None if it is gone. A changed length under an old head would cut the answer."""
        if _state(entry.path) == entry.seen:
            return entry
        self._add(entry.url, entry.path)
        found = self._entries.get(entry.url)
        if found is None:
            self._entries[entry.url] = entry  # it may come back
        return found

    async def _send_file(self, entry: _Entry, scope: Scope, receive: Receive, send: Send) -> None:
        headers, matched = _conditions(scope, entry)

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _tag(message, entry, matched)
            await send(message)

        server = FileServerASGI(entry.file)
        server.block_size = BLOCK
        await server({**scope, "headers": headers}, receive, tagged)


def _files(directory: str) -> Iterator[str]:
    """The paths of all files below ``directory`` that may be served.

    Names that begin with a dot are left out with what is below them (``.git``, ``.env``), but for ``.well-known``
    (RFC 8615). A symbolic link counts where it ends inside the directory, at no directory around itself.
    """
    root = os.path.realpath(directory)
    waiting = [(directory, frozenset({root}))]
    while waiting:
        place, around = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except PermissionError:
            if place == directory:
                raise
            continue
        names = {entry.name for entry in entries}
        for entry in entries:
            if entry.name.startswith(".") and entry.name != ".well-known":
                continue
            real = os.path.realpath(entry.path)
            if not real.startswith(root.rstrip("/") + "/") or _hidden(real[len(root) :]):
                continue
            if os.path.isdir(real):
                if real not in around:
                    waiting.append((entry.path, around | {real}))
            elif os.path.isfile(real) and os.access(real, os.R_OK) and not _is_variant(entry.name, names):
                yield entry.path


def _hidden(path: str) -> bool:
    """Whether a link leads to what is not shown under its own name."""
    return any(part.startswith(".") and part != ".well-known" for part in path.split("/"))


def _is_variant(name: str, names: set[str]) -> bool:
    """Whether a file is the compressed form of another one (``app.js.gz``), which is what the URL names."""
    base, dot, suffix = name.rpartition(".")
    return dot + suffix in _ENCODED and base in names


def _state(path: str) -> tuple[tuple[int, int, int] | None, ...]:
    """Size, time and inode of a file and of its variants; None for what is no regular file."""
    return tuple(_stat(path + suffix) for suffix in ("", *_ENCODED))


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _add_headers(headers: Headers, path: str, url: str) -> None:
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Accept-Ranges"] = "bytes"


def _conditions(scope: Scope, entry: _Entry) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The request's headers with its conditions decided, and the entity tag of the client's that holds.

    servestatic compares If-None-Match as one string, ignores If-Range and takes whatever int() does for a range.
    """
    given: dict[bytes, bytes] = {}
    headers: list[tuple[bytes, bytes]] = []
    for name, value in scope["headers"]:
        if name in _CONDITIONS:
            given[name] = given[name] + b"," + value if name in given else value
        elif b"_" not in name:  # servestatic would take it for the one with a hyphen
            headers.append((name, value))
    matched = b""
    if b"if-none-match" in given:
        # RFC 9110 13.1.2: a list, compared weakly, or "*"; If-Modified-Since then has no say.
        asked = given[b"if-none-match"]
        mine = set(entry.tags.values())
        matched = next((tag for tag in _ETAG.findall(asked) if tag in mine), b"")
        if asked.strip() == b"*":
            matched = entry.tags.get(b"", b"")
        headers.append((b"if-none-match", entry.tags[b""] if matched else b'""'))
    elif b"if-modified-since" in given:
        headers.append((b"if-modified-since", given[b"if-modified-since"]))
    # RFC 9110 14.2: ranges are defined for GET; one that is not understood, or that is of another version, is ignored.
    if scope["method"] == "GET" and b"range" in given and _RANGE.fullmatch(given[b"range"].strip()):
        if given[b"range"].strip().rpartition(b"-")[2].strip(b"0") == b"" and b"=-" in given[b"range"]:
            headers.append((b"range", b"bytes=%d-" % (10**18)))  # the last 0 bytes: not satisfiable
        elif b"if-range" not in given or _if_range(given[b"if-range"].strip(), entry, headers):
            headers.append((b"range", given[b"range"].strip()))
    return headers, matched


def _if_range(condition: bytes, entry: _Entry, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the client has a part of what it would get (RFC 9110 13.1.5): the tag of exactly this representation.

    A date is too weak: a file may change twice within its second, and its variants have one date.
    """
    values = {name.decode("latin-1").upper().replace("-", "_"): value.decode("latin-1") for name, value in headers}
    path, _ = entry.file.get_path_and_headers({f"HTTP_{name}": value for name, value in values.items()})
    coding = next((coding for coding, found, _ in entry.file.alternatives if found == path), None) or ""
    return condition == entry.tags.get(coding.encode())


def _tag(message: Message, entry: _Entry, matched: bytes) -> list[tuple[bytes, bytes]]:
    """The response's headers, with the entity tag of the representation that it is of."""
    headers: list[tuple[bytes, bytes]] = list(message["headers"])
    coding = next((value for name, value in headers if name == b"content-encoding"), b"")
    tag = matched if message["status"] == 304 and matched else entry.tags.get(coding, b"")
    if message["status"] == 416:
        headers = [pair for pair in headers if pair[0] not in (b"content-encoding", b"content-type")]
    if message["status"] in (405, 416):
        headers.append((b"content-length", b"0"))
    return [(name, tag if name == b"etag" else value) for name, value in headers]


async def _not_found(method: str, send: Send) -> None:
    body = b"Not Found\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

"""Smoke checks: a few requests to a new worker before any client is.

They go over its private unix socket, one connection each, in order; the first miss ends them. A check is a path and the
status that it must be answered with, and the response must be complete: an application that breaks off in the middle of
``/openapi.json`` has sent its 200 before. Redirects are not followed; ``=307`` can be asked for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from lastcall.base.errors import LastcallError

CHECK_TIMEOUT = 5.0
"""Seconds for one check, from connecting to the end of the response."""

HEAD_AT_MOST = 64 * 1024
BODY_AT_MOST = 16 * 1024 * 1024
"""Bytes of a response that are read; what is longer is a miss."""

DISCOVERED = ("/openapi.json", "/docs")
"""Paths that are checked without being asked for, where the old generation has them."""

GENERATIONS_KEPT = 4
"""Of those that were there before, most are gone."""

Check: TypeAlias = tuple[str, int]
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect: TypeAlias = Callable[[], Awaitable[Streams]]

# RFC 9112 4: the reason may be empty, and its blank missing, as some senders have it.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}[ \t]*(?:;.*)?")
_NO_BODY = (204, 304)


class SmokeError(LastcallError):
    """A response that is none, or not a complete one; the text says what was got."""


async def smoke(where: str | Connect, checks: Iterable[Check], timeout: float = CHECK_TIMEOUT) -> str:
    """Ask for each path; return the first miss in one line, or ``""``.

    ``where``: the path of the worker's private unix socket, or what connects to it. ``timeout`` is seconds for each
    check. What goes wrong is a miss, and is not raised.
    """
    for path, expected in checks:
        try:
            status = await fetch_status(where, path, timeout)
        except TimeoutError:
            return f"GET {path}: expected {expected}, got no complete answer within {timeout:g} s"
        except (OSError, SmokeError) as exc:
            return f"GET {path}: expected {expected}, got {_described(exc)}"
        if status != expected:
            return f"GET {path}: expected {expected}, got {status}"
    return ""


def checks_for(asked: tuple[Check, ...], ready_path: str, there: Iterable[str]) -> tuple[Check, ...]:
    """The checks of a new worker: those ``asked`` for by ``--smoke``, or by default what is known to work.

    That is ``ready_path`` (``""``: there is none), and the paths that are ``there`` in the old generation.
    """
    return asked or tuple((path, 200) for path in (*filter(None, [ready_path]), *there))


class Discovery:
    """Which of ``DISCOVERED`` the application of a generation answers with 200. Each is asked for once.

    An application may answer what it does not have with a traceback in its log, or slowly.
    """

    def __init__(self) -> None:
        self._found: dict[int, dict[str, bool]] = {}

    def passed(self, generation: int, checks: Iterable[Check]) -> None:
        """A worker has passed these: its generation need not be asked."""
        self._of(generation).update({path: True for path, status in checks if status == 200 and path in DISCOVERED})

    async def ask(self, generation: int, where: str | Connect, timeout: float = CHECK_TIMEOUT) -> tuple[str, ...]:
        """The paths that are there; ``where``, a worker of that generation, is asked for those not known yet.

        What cannot be asked for, since the worker is gone, stays unknown.
        """
        found = self._of(generation)
        for path in DISCOVERED:
            if path not in found:
                try:
                    found[path] = await fetch_status(where, path, timeout) == 200
                except (TimeoutError, SmokeError):
                    found[path] = False
                except OSError:
                    continue
        return tuple(path for path in DISCOVERED if found.get(path))

    def _of(self, generation: int) -> dict[str, bool]:
        found = self._found.setdefault(generation, {})
        for old in sorted(self._found)[:-GENERATIONS_KEPT]:
            if old != generation:
                del self._found[old]
        return found


async def fetch_status(where: str | Connect, path: str, timeout: float) -> int:
    """GET ``path``, read the whole response, and return its status.

    Raises TimeoutError, OSError, and SmokeError for a response that is broken or too long.
    """
    async with asyncio.timeout(timeout):
        reader, writer = await (_open(where) if isinstance(where, str) else where())
        try:
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: lastcall-smoke\r\n"
                "Accept: */*\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            return await _read_response(reader)
        finally:
            writer.transport.abort()  # the response is read, or of no use: nothing is left to wait for


async def _open(path: str) -> Streams:
    return await asyncio.open_unix_connection(path, limit=HEAD_AT_MOST)


async def _read_response(reader: asyncio.StreamReader) -> int:
    while True:
        status, fields = await _read_head(reader)
        if status >= 200:
            break
        if status == 101:
            raise SmokeError("101, which was not asked for")
    if status in _NO_BODY:
        return status
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        await _read_chunks(reader, status)
    elif (length := fields.get(b"content-length")) is not None:
        if not re.fullmatch(rb"[0-9]{1,15}", length):
            raise SmokeError(f"{status} with a Content-Length that is no number")
        await _read_exactly(reader, int(length), status)
    else:
        await _read_to_end(reader, status)
    return status


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as exc:
        raise SmokeError("a response head that is too long") from exc
    except asyncio.IncompleteReadError as exc:
        raise SmokeError("half a response head" if exc.partial else "a closed connection") from exc
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise SmokeError("no HTTP response")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip(b" \t")
    return int(match[1]), fields


async def _read_chunks(reader: asyncio.StreamReader, status: int) -> None:
    """RFC 9112 7.1, and whatever trailers there are."""
    left = BODY_AT_MOST
    while size := await _read_size(reader, status):
        left -= size
        if left < 0:
            raise SmokeError(_too_long(status))
        await _read_exactly(reader, size, status)
        if await _read_line(reader, status):
            raise SmokeError(f"{status} with a broken chunk")
    while line := await _read_line(reader, status):
        left -= len(line)
        if left < 0:
            raise SmokeError(_too_long(status))


async def _read_size(reader: asyncio.StreamReader, status: int) -> int:
    line = await _read_line(reader, status)
    if not _SIZE.fullmatch(line):
        raise SmokeError(f"{status} with a broken chunk")
    return int(line.partition(b";")[0], 16)


async def _read_line(reader: asyncio.StreamReader, status: int) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n")).removesuffix(b"\r\n")
    except asyncio.IncompleteReadError as exc:
        raise SmokeError(_cut(status)) from exc
    except asyncio.LimitOverrunError as exc:
        raise SmokeError(f"{status} with a broken chunk") from exc


async def _read_exactly(reader: asyncio.StreamReader, length: int, status: int) -> None:
    if length > BODY_AT_MOST:
        raise SmokeError(_too_long(status))
    while length:
        data = await reader.read(min(length, HEAD_AT_MOST))
        if not data:
            raise SmokeError(_cut(status))
        length -= len(data)


async def _read_to_end(reader: asyncio.StreamReader, status: int) -> None:
    left = BODY_AT_MOST
    while data := await reader.read(HEAD_AT_MOST):
        left -= len(data)
        if left < 0:
            raise SmokeError(_too_long(status))


def _cut(status: int) -> str:
    return f"{status} with a body that was cut"


def _too_long(status: int) -> str:
    return f"{status} with a body of more than {BODY_AT_MOST // (1024 * 1024)} MiB"


def _described(exc: OSError | SmokeError) -> str:
    if isinstance(exc, ConnectionResetError):
        return "a connection that was reset"
    if isinstance(exc, OSError):
        return f"no connection ({exc.strerror or exc})"
    return str(exc)

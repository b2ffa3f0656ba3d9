"""Compressors for content codings: gzip by zlib, br by ``brotli``, zstd by Python 3.14 or ``zstandard``.

All have one shape: ``compress(data)`` takes a piece and may keep it, ``flush()`` gives out what was kept so that the
peer can read it, ``finish()`` ends the stream. Windows are at most 256 KiB, whatever a library would take by itself:
that bounds what a response holds here, and what its client needs.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

GZIP_LEVEL: Final = 5
BROTLI_QUALITY: Final = 4
ZSTD_LEVEL: Final = 3
WINDOW_BITS: Final = 18
"""Of br and zstd; gzip's window is 15 bits."""


class Compressor(Protocol):
    """One stream. Each method returns the bytes that are ready."""

    def compress(self, data: bytes | memoryview) -> bytes:
        """Take a piece."""

    def flush(self) -> bytes:
        """Let the peer read everything that was taken."""

    def finish(self) -> bytes:
        """End the stream."""


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)  # 31: gzip's frame around 15 bits of window

    def compress(self, data: bytes | memoryview) -> bytes:
        return self._stream.compress(data)

    def flush(self) -> bytes:
        return self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush(zlib.Z_FINISH)


class _Brotli:
    def __init__(self, brotli: Any) -> None:
        self._stream = brotli.Compressor(quality=BROTLI_QUALITY, lgwin=WINDOW_BITS)

    def compress(self, data: bytes | memoryview) -> bytes:
        out: bytes = self._stream.process(bytes(data))
        return out

    def flush(self) -> bytes:
        out: bytes = self._stream.flush()
        return out

    def finish(self) -> bytes:
        out: bytes = self._stream.finish()
        return out


class _Zstandard:
    def __init__(self, zstandard: Any) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(ZSTD_LEVEL, window_log=WINDOW_BITS)
        self._flush_block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def compress(self, data: bytes | memoryview) -> bytes:
        out: bytes = self._stream.compress(data)
        return out

    def flush(self) -> bytes:
        out: bytes = self._stream.flush(self._flush_block)
        return out

    def finish(self) -> bytes:
        out: bytes = self._stream.flush()
        return out


class _StandardZstd:
    """Python 3.14's."""

    def __init__(self, zstd: Any) -> None:
        options = {
            zstd.CompressionParameter.compression_level: ZSTD_LEVEL,
            zstd.CompressionParameter.window_log: WINDOW_BITS,
        }
        self._stream = zstd.ZstdCompressor(options=options)

    def compress(self, data: bytes | memoryview) -> bytes:
        out: bytes = self._stream.compress(data)
        return out

    def flush(self) -> bytes:
        out: bytes = self._stream.flush(self._stream.FLUSH_BLOCK)
        return out

    def finish(self) -> bytes:
        out: bytes = self._stream.flush(self._stream.FLUSH_FRAME)
        return out


def available() -> Mapping[str, Callable[[], Compressor]]:
    """The codings that can be made here, best first, with what makes a stream of each."""
    found: dict[str, Callable[[], Compressor]] = {}
    standard = _module("compression.zstd")
    zstandard = None if standard else _module("zstandard")
    if standard is not None:
        found["zstd"] = lambda: _StandardZstd(standard)
    elif zstandard is not None:
        found["zstd"] = lambda: _Zstandard(zstandard)
    brotli = _module("brotli")
    if brotli is not None:
        found["br"] = lambda: _Brotli(brotli)
    found["gzip"] = _Gzip
    return MappingProxyType(found)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None

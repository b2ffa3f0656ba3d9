"""The options of what the server puts around an application: static files, compression, WSGI's threads.

They are rows of the one table in :mod:`lastcall.config.options`.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Final

from lastcall.config.kinds import Count, Kind, PathPrefix, Switch, UnusableValueError
from lastcall.config.lists import Strings
from lastcall.config.option import Option


class StaticDirectories(Kind):
    """``/PREFIX=DIRECTORY``, read into pairs of prefix and absolute directory. The prefix ``/`` is the empty string.

    The directory has to be there, and the library that serves it has to be installed: a server that would answer 404
    to all its pictures should not start.
    """

    repeatable: bool = True

    @property
    def expected(self) -> str:
        return "/PREFIX=DIRECTORY, as in /static=build/static"

    @property
    def annotation(self) -> str:
        return "str | Sequence[str]"

    @property
    def metavar(self) -> str:
        return "/PREFIX=DIR"

    def show(self, value: object) -> str:
        return "none" if value == () else super().show(value)

    def convert(self, value: object) -> tuple[tuple[str, str], ...]:
        found: dict[str, str] = {}
        for text in Strings().convert(value):
            prefix, directory = self._pair(text)
            if prefix in found:
                raise UnusableValueError("each prefix only once", text)
            found[prefix] = directory
        if found and importlib.util.find_spec("servestatic") is None:
            raise UnusableValueError("servestatic to be installed: pip install 'lastcall[static]'")
        return tuple(found.items())

    def _pair(self, text: str) -> tuple[str, str]:
        prefix, equals, directory = text.partition("=")
        if not equals or not prefix or not directory or "\0" in directory:
            raise UnusableValueError(self.expected, text)
        prefix = PathPrefix().convert(prefix) if prefix != "/" else ""
        if any(part in (".", "..", "") for part in prefix.split("/")[1:]):
            raise UnusableValueError("a prefix without empty parts, . and ..", text)
        try:
            path = os.path.abspath(directory)
        except OSError:  # the current directory has been removed
            raise UnusableValueError("a directory that exists", text) from None
        if not os.path.isdir(path):
            raise UnusableValueError("a directory that exists", text)
        if not os.access(path, os.R_OK | os.X_OK):
            raise UnusableValueError("a directory that can be read", text)
        return prefix, path


EXTRAS: Final = (
    Option(
        name="wsgi_threads",
        kind=Count(least=1, most=10_000),
        default=10,
        group="Application",
        help="Requests that a WSGI application works on at the same time; further ones wait for a thread.",
    ),
    Option(
        name="static",
        kind=StaticDirectories(),
        default=(),
        group="Responses",
        help=(
            "Serve the files of a directory under a path, without the application (needs `lastcall[static]`). May be "
            "given several times. [How](../how-to/serve-static-files.md)"
        ),
    ),
    Option(
        name="compress",
        kind=Switch(form="single"),
        default=False,
        group="Responses",
        help=(
            "Compress responses of the application: gzip, and br and zstd with `lastcall[compress]`. "
            "[What is not compressed, and why](../how-to/compress-responses.md)"
        ),
    ),
)

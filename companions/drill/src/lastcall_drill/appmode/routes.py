"""What is judged: an application, the routes that are open when its server is stopped, and how they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from lastcall_drill.record import Record

WITHOUT_BODY: Final = ("GET", "HEAD")


class Kind(Enum):
    """How a route is opened."""

    HTTP = "http"
    WEBSOCKET = "websocket"


class Route(Record):
    """One thing that is asked for. ``target`` is as it is sent: a path, perhaps with a query string.

    ``body`` is sent with its own Content-Length; None: there is none.
    """

    target: str
    method: str = "GET"
    kind: Kind = Kind.HTTP
    body: bytes | None = None

    @property
    def label(self) -> str:
        """Its name in sentences: the target, with the method if that is not GET."""
        if self.kind is Kind.WEBSOCKET:
            return f"WebSocket {self.target}"
        return self.target if self.method == "GET" else f"{self.method} {self.target}"

    @property
    def path(self) -> str:
        """Without the query string, as it is sent: lastcall's report has it so."""
        return self.target.partition("?")[0]

    @property
    def decoded(self) -> str:
        """The path without %XX, which is what an application sees, and what globs are compared with."""
        return unquote(self.path)

    @property
    def who(self) -> str:
        """Its name among the events that the wrapper notes."""
        path = quote(self.decoded)
        word = "WEBSOCKET" if self.kind is Kind.WEBSOCKET else self.method
        return path if word == "GET" else f"{word}:{path}"


class Subject(Record):
    """An application: ``name`` is ``module:attribute``, imported from ``directory``. ``grace`` is in whole seconds.

    ``headers`` are lines ``Name: value``, sent with every request and handshake.
    """

    name: str
    routes: Sequence[Route]
    directory: Path
    grace: int = 5
    scale: float = 1.0
    headers: Sequence[str] = ()


def routes_of(
    targets: Sequence[str], websockets: Sequence[str], method: str | None, body: bytes | None
) -> tuple[Route, ...]:
    """The routes that ``--route`` and ``--websocket`` name, each once. Raises ValueError with a sentence.

    A target may have its method before it (``POST /jobs``). Another has ``method``, and without that GET, or POST if
    there is a body. A body goes with each route, unless that says GET or HEAD itself.
    """
    found = []
    for text in targets:
        said, _, target = text.partition(" ") if text[:1].isalpha() and " " in text else ("", "", text)
        word = (said or method or ("GET" if body is None else "POST")).upper()
        if not word.isascii() or not word.isalpha():
            raise ValueError(f"{word!r} is no method: expected one such as POST")
        _must_be_target("--route", target)
        found.append(Route(target, word, body=None if said and word in WITHOUT_BODY else body))
    for target in websockets:
        _must_be_target("--websocket", target)
        found.append(Route(target, kind=Kind.WEBSOCKET))
    return tuple(dict.fromkeys(found))


def _must_be_target(option: str, target: str) -> None:
    if not target.startswith("/"):
        raise ValueError(f"{option} {target}: expected a path, such as /events")
    if not all("!" <= one <= "~" for one in target):
        raise ValueError(f"{option} {target!r}: expected %XX for spaces and what is not ASCII")

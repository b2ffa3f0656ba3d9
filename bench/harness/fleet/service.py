"""Services of several workers, on both cores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import processes
from ..catalogue import APPS, Server
from ..processes import Running
from ..session import Session

WORKERS = 2


def cores(session: Session) -> str:
    """Both cores, as taskset wants them."""
    return f"{session.server_core},{session.load_core}"


@contextlib.contextmanager
def serving(
    session: Session,
    server: Server,
    app: str,
    *,
    extra: list[str],
    directory: Path = APPS,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """The server on both cores, with `extra` arguments; it has answered. Raises BenchError."""
    with processes.launched(
        server, app, core=cores(session), extra=extra, directory=directory, environment=environment
    ) as running:
        processes.await_answer(running, server.name)
        yield running

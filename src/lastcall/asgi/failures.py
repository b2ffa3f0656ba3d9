"""What an application's exception came of: a client that left, or a cancel of ours."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from weakref import WeakSet

from lastcall.base.errors import ClientDisconnected

MOST_EXCEPTIONS = 1000
"""So many are looked at to tell what one came of."""


def is_disconnect(exc: BaseException) -> bool:
    """Whether an exception is, or came of, a ClientDisconnected; a group is one if all that is in it are."""
    return _comes_of(exc, ClientDisconnected, all_of_a_group=True, known={})


def follows_a_cancel(exc: BaseException) -> bool:
    """Whether an exception was raised while a CancelledError was handled."""
    return _comes_of(exc, CancelledError, all_of_a_group=False, known={})


_watched: WeakSet[asyncio.Task[object]] = WeakSet()


def client_left() -> ClientDisconnected:
    """What ``send()`` raises once its client has left.

    A task that the application has made to send (a2wsgi's, Sanic's) often ends of it with nobody waiting; asyncio would
    log "Task exception was never retrieved" for each client that leaves, so the task of the caller is watched for it.
    That of a request needs none of this, but is told apart no cheaper.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs: at the interpreter's exit, or in a finalizer
        task = None
    if task is not None and task not in _watched:
        _watched.add(task)
        task.add_done_callback(_retrieve_disconnect)
    return ClientDisconnected("the client has disconnected")


def _retrieve_disconnect(task: asyncio.Task[object]) -> None:
    """Retrieve the exception of a task that has ended if it came of a client that left, and no other."""
    # Asking for it by exception() would count as retrieving it; a task of another class may not have the attribute.
    exc = getattr(task, "_exception", None)
    if exc is not None and is_disconnect(exc):
        task.exception()


def _comes_of(
    exc: BaseException | None, kind: type[BaseException], *, all_of_a_group: bool, known: dict[int, bool]
) -> bool:
    """Whether an exception is, or came of, one of a kind, or of a group that has one, or that has nothing else.

    ``known`` has what was found out on the way, by id: exceptions may lead to each other in a circle. Starlette's
    BaseHTTPMiddleware makes one the cause of itself, by way of the group that it came in.
    """
    found = False
    path: list[BaseException] = []
    while exc is not None and len(known) < MOST_EXCEPTIONS:
        if id(exc) in known:
            found = known[id(exc)]
            break
        known[id(exc)] = False  # as long as it is being looked at
        path.append(exc)
        if isinstance(exc, kind):
            found = True
            break
        if isinstance(exc, BaseExceptionGroup):
            inner = (_comes_of(one, kind, all_of_a_group=all_of_a_group, known=known) for one in exc.exceptions)
            found = all(inner) if all_of_a_group else any(inner)
            if found or all_of_a_group:
                break
        exc = exc.__cause__ if exc.__cause__ is not None else exc.__context__
    if found:
        for seen in path:
            known[id(seen)] = True
    return found

"""Event loops: by name, made, and not there already."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from lastcall.asgi.loading import place_of, refuse_while_loading
from lastcall.base.errors import ConfigError
from lastcall.base.lineage import leave_if_child

FACTORY = "a callable that returns an event loop"

AT_ONCE = 10
"""How often a loop that has let an exception out runs again at once; from then on after a pause."""
PAUSE = 0.01
"""Seconds of that."""
MOST = 1000
"""After so many exceptions, ten seconds at least, the loop is taken for one that cannot run any more."""


def loop_factory(loop: str | object) -> Callable[[], asyncio.AbstractEventLoop]:
    """The factory of ``--loop``: ``auto``, ``asyncio``, ``none``, ``uvloop``, ``module:factory``, or a callable.

    ``auto`` is asyncio's selector loop with its hottest call compiled: under the native reactor uvloop has been no
    faster, and it is one thing more that can differ. ``asyncio`` is asyncio's default, untouched. Raises
    ConfigError for a loop that cannot be had.
    """
    if callable(loop):
        return loop
    if loop in ("auto", None):
        return compiled_loop
    if loop in ("asyncio", "none"):
        return asyncio.new_event_loop
    if loop == "uvloop":
        try:
            import uvloop  # noqa: PLC0415
        except ImportError:
            raise ConfigError("--loop", loop, "uvloop to be installed: pip install 'lastcall[uvloop]'") from None
        return uvloop.new_event_loop
    module, _, attribute = str(loop).partition(":")
    try:
        found: object = import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (Exception, SystemExit) as exc:  # whatever the module's code leads to
        raise ConfigError("--loop", loop, f"an importable module:factory ({_cause(exc)})") from exc
    if not callable(found):
        raise ConfigError("--loop", loop, FACTORY)
    return found


def compiled_loop() -> asyncio.AbstractEventLoop:
    """Asyncio's selector loop with a compiled ``call_soon``; asyncio's default loop where that does not fit."""
    from lastcall.net.loop import SelectorLoop  # noqa: PLC0415 - another loop does not need it

    loop = SelectorLoop()
    if loop.suits():
        return loop
    loop.close()
    return asyncio.new_event_loop()


def make_loop(loop: str | object) -> asyncio.AbstractEventLoop:
    """A new event loop, as ``--loop`` says.

    Raises ConfigError for a loop that cannot be had, and for a factory that needs arguments or makes something else.
    """
    factory = loop_factory(loop)
    try:
        made: object = factory()
    except (Exception, SystemExit) as exc:
        raise ConfigError("--loop", loop, f"{FACTORY} ({_cause(exc)})") from exc
    if not isinstance(made, asyncio.AbstractEventLoop):
        if asyncio.iscoroutine(made):
            made.close()
        raise ConfigError("--loop", loop, f"{FACTORY}, not {type(made).__name__}")
    return made


def _cause(exc: BaseException) -> str:
    """An exception of other people's code in a line: what it says, and where it came up."""
    said = " ".join(str(exc).split())
    return f"{type(exc).__name__}{': ' if said else ''}{said}{place_of(exc)}"


def run_until_done(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], told: Callable[[BaseException], object]
) -> None:
    """Run ``loop`` until ``task`` is done. Exceptions that come out of the loop meanwhile are ``told``; it goes on.

    Asyncio lets SystemExit and KeyboardInterrupt of any task out, and what a signal handler of the application's raises
    while the loop waits; ``loop.stop()`` shows as a RuntimeError. None of them says anything of ``task``. Raises the
    task's own exception, and that of a loop that does nothing but raise.
    """
    came = 0
    pid = os.getpid()
    while not task.done():
        try:
            loop.run_until_complete(task)
        except BaseException as exc:
            leave_if_child(pid, exc)
            own = task.done() and (task.cancelled() or task.exception() is exc)
            came += 1
            if own or came > MOST:
                raise
            if came > AT_ONCE:
                time.sleep(PAUSE)
            told(exc)


def is_stop(exc: BaseException) -> bool:
    """Whether it is what ``loop.stop()`` in a callback makes ``run_until_complete()`` raise, in asyncio and uvloop."""
    return isinstance(exc, RuntimeError) and str(exc) == "Event loop stopped before Future completed."


def refuse_running_loop() -> None:
    """Raise RuntimeError where an event loop runs already in this thread: a second one could not run inside it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    refuse_while_loading()
    raise RuntimeError(
        "an event loop is running in this thread already: use `await Server(Config(...)).serve()` instead of run()"
    )

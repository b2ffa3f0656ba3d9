"""What a scenario is, and where all of them are found.

A scenario is a function of a :class:`~lastcall_drill.harness.Harness`, in a module of its own in
``lastcall_drill.scenarios``. It returns a sentence that says what was seen, which is a pass, or raises :class:`Failed`
with one that says what was seen instead. Sentences do not judge: what happened and when, and what was asked for.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final, NotRequired, TypedDict, Unpack

from lastcall_drill.record import Record
from lastcall_drill.verdicts import Basis, ScenarioInfo

if TYPE_CHECKING:
    from lastcall_drill.harness import Harness

GROUPS: Final = (
    "Requests",
    "Streams",
    "Connections",
    "Signals",
    "Lifespan",
    "Work after the response",
    "Applications that misbehave",
    "Process and sockets",
    "WebSocket",
    "Several workers",
)
"""The headings of the matrix, in their order."""

DEADLINE: Final = 45.0
"""Seconds that a scenario may take, unless it says so."""


class Failed(Exception):
    """The server did not do what the scenario's clause asks for. Its text is the sentence of the report."""


class NotOffered(Exception):
    """Running it has shown that the server has no such feature. Its text is the sentence of the report."""


class Scenario(Record):
    """One thing that a server is asked to do.

    ``needs`` are features without which it is "unsupported"; ``steps`` carry it out; ``deadline`` is how long they may
    take (seconds): it is far more than they need, and a server that is still there then is killed. ``signals``: it is
    about a signal, so that a failure before the first one is no verdict on it.
    """

    info: ScenarioInfo
    steps: Callable[[Harness], str]
    needs: frozenset[str] = frozenset()
    deadline: float = DEADLINE
    signals: bool = True

    @property
    def id(self) -> str:
        """Its name on the command line."""
        return self.info.id


class Description(TypedDict):
    """The fields of :class:`ScenarioInfo` that a scenario gives."""

    id: str
    title: str
    group: str
    clause: str
    reason: str
    rule: str
    tolerance: str
    basis: Basis
    sources: NotRequired[Sequence[str]]


def scenario(
    *needs: str, deadline: float = DEADLINE, signals: bool = True, **described: Unpack[Description]
) -> Callable[[Callable[[Harness], str]], Scenario]:
    """Make a scenario of its steps. ``needs`` are features, ``deadline`` is in seconds, the rest is told.

    ``signals=False``: it is judged without any signal.
    """

    def make(steps: Callable[[Harness], str]) -> Scenario:
        return Scenario(ScenarioInfo(**described), steps, frozenset(needs), deadline, signals)

    return make


@cache
def scenarios() -> tuple[Scenario, ...]:
    """All scenarios, in the order of their groups, then of their ids."""
    package = import_module("lastcall_drill.scenarios")
    modules = [import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Scenario)]
    return tuple(sorted(found, key=lambda one: (GROUPS.index(one.info.group), one.id)))

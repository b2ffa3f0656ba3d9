"""How a drill goes, on stderr while it runs: bars on a terminal, a line for each result elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from lastcall_drill.reports.text import counted, one_line
from lastcall_drill.verdicts import Result, Verdict

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Live(Protocol):
    """Shows a drill; see :class:`lastcall_drill.runner.Watcher`."""

    def say(self, line: str) -> None:
        """Show a line: what is installed, or waited for."""

    def plan(self, servers: Sequence[str], scenarios: int) -> None:
        """The servers are ready; each has so many scenarios before it."""

    def begun(self, server: str, scenario: str, attempt: int) -> None:
        """A scenario is started."""

    def done(self, result: Result) -> None:
        """A scenario is judged."""


class Lines:
    """A line for each result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        """See :class:`Live`."""
        with self._lock:
            print(line, file=sys.stderr, flush=True)

    def plan(self, servers: Sequence[str], scenarios: int) -> None:
        """See :class:`Live`."""
        self.say(f"{counted(scenarios, 'scenario')} on {', '.join(servers)}")

    def begun(self, server: str, scenario: str, attempt: int) -> None:
        """See :class:`Live`."""

    def done(self, result: Result) -> None:
        """See :class:`Live`. What was not asked is told by the table alone."""
        if result.verdict is Verdict.UNREACHED:
            return
        tries = f" ({result.tries} tries)" if result.tries > 1 else ""
        first = one_line(result.sentence.partition("\n")[0])
        self.say(f"{result.verdict.value:11} {result.server}: {result.scenario}: {first}{tries}")


class Bars:
    """A bar for each server, and what it is at."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._failed: dict[str, int] = {}
        self._running: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        """See :class:`Live`."""
        self._progress.console.print(line, markup=False, highlight=False)

    def plan(self, servers: Sequence[str], scenarios: int) -> None:
        """See :class:`Live`."""
        for server in servers:
            self._bars[server] = self._progress.add_task(server, total=scenarios, now="")
            self._failed[server] = 0
            self._running[server] = []

    def begun(self, server: str, scenario: str, attempt: int) -> None:
        """See :class:`Live`."""
        with self._lock:
            if attempt == 1:
                self._running[server].append(scenario)
            self._show(server)

    def done(self, result: Result) -> None:
        """See :class:`Live`."""
        with self._lock:
            if result.scenario in self._running[result.server]:
                self._running[result.server].remove(result.scenario)
            self._failed[result.server] += result.verdict in (Verdict.FAIL, Verdict.ERROR)
            self._progress.advance(self._bars[result.server])
            self._show(result.server)

    def _show(self, server: str) -> None:
        failed = f"{self._failed[server]} failed  " if self._failed[server] else ""
        self._progress.update(self._bars[server], now=failed + ", ".join(self._running[server]))


@contextmanager
def live() -> Iterator[Live]:
    """What shows the drill here."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    # Here and not above: only for a terminal.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=30)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}", markup=False, style="dim", table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as progress:
        yield Bars(progress)

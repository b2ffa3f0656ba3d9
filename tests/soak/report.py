"""What a soak has measured, and whether that is flat: the figures, the bounds, the table."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

from bench.harness.report import replace_section
from lastcall import __version__
from tests.soak.app import ON_PURPOSE, SHUT_DOWN
from tests.soak.load import Outcome

MIB = 1024 * 1024
WARM_UP = 0.2  # of the duration: pools, caches and the allocator's arenas fill
GROWTH_SHARE = 0.03
GROWTH_BYTES = 2 * MIB
OBJECTS = 200  # what interned strings, caches of regular expressions and the like may come to
STOP_SECONDS = 3.0

# What the application's own faults make the server say, and nothing else above INFO.
EXPECTED_ERRORS = re.compile(
    r"ERROR: +(?:"
    rf"Exception in ASGI application: GET /raises\nTraceback \(most recent call last\):\n(?:  .*\n)+"
    rf"RuntimeError: {ON_PURPOSE}"
    r"|GET /silent: the application returned without a response"
    r"|GET /unfinished: the application returned in the middle of its response"
    r"|GET /misjudged: the response body is longer than its content-length: cut"
    r"|GET /misjudged: the response body is 1 bytes shorter than its content-length: connection closed"
    r")"
)
RECORD = re.compile(r"^(?=(?:TRACE|DEBUG|INFO|WARNING|ERROR|CRITICAL): )", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """What ``/stats`` said ``at`` seconds after the load began. ``rss`` is bytes, ``cpu`` seconds."""

    at: float
    rss: int
    fds: int
    tasks: int
    objects: int
    blocks: int
    cpu: float
    ours: dict[str, int]
    active: dict[str, int]
    ended: dict[str, int]


@dataclass
class Report:
    """A whole soak. ``tolerance`` (bytes) is what the RSS may grow; `failures` says what is not as it must be."""

    duration: float
    seed: str
    start: Sample
    during: Sequence[Sample]
    end: Sample
    load: Outcome
    stderr: str
    exit_code: int
    stop_seconds: float
    tolerance: int = GROWTH_BYTES
    options: Sequence[str] = ()
    warm: float = field(init=False)
    growth: float = field(init=False)

    def __post_init__(self) -> None:
        flat = [sample for sample in self.during if sample.at >= WARM_UP * self.duration]
        slope, height = linear_regression([sample.at for sample in flat], [sample.rss for sample in flat])
        self.warm = height + slope * flat[0].at
        self.growth = slope * (flat[-1].at - flat[0].at)

    @property
    def bound(self) -> float:
        """Bytes of RSS that may come on top of the warm level, over the whole time."""
        return max(self.tolerance, GROWTH_SHARE * self.warm)

    def failures(self) -> list[str]:
        """One sentence for each thing that is wrong; empty if all is well."""
        start, end = self.start, self.end
        found = [f"{count} x {error}" for error, count in sorted(self.load.errors.items())]
        if found:
            found += self.load.examples
        if not self.load.requests:
            found.append("no request was answered")
        if self.growth > self.bound:
            found.append(f"RSS grows by {_mib(self.growth)} after the warm-up; {_mib(self.bound)} is the bound")
        if end.rss > self.warm + self.bound:
            found.append(f"RSS is {_mib(end.rss)} at the end; it was {_mib(self.warm)} when warm")
        for name, before, after in (("descriptors", start.fds, end.fds), ("tasks", start.tasks, end.tasks)):
            if before != after:
                found.append(f"{after} {name} at the end, not {before} as at the start")
        if end.objects > start.objects + OBJECTS:
            found.append(f"{end.objects} objects at the end, {start.objects} at the start")
        if end.ours != start.ours:
            found.append(f"objects of lastcall at the end: {end.ours}; at the start: {start.ours}")
        if end.active != start.active:
            found.append(f"handlers that never ended: {end.active}")
        found += [f"unexpected in the log: {record}" for record in unexpected(self.stderr)[:20]]
        logged = self.stderr.count(ON_PURPOSE)
        if logged != end.ended.get("raised", 0):
            found.append(f"{end.ended.get('raised', 0)} handlers raised, {logged} are logged")
        if self.exit_code != 0 or self.stop_seconds > STOP_SECONDS or SHUT_DOWN not in self.stderr:
            found.append(f"SIGTERM: exit code {self.exit_code} after {self.stop_seconds:.1f} s\n{self.stderr[-2000:]}")
        return found

    def table(self) -> str:
        """The figures as a Markdown table."""
        start, end, load = self.start, self.end, self.load
        peak = max(self.during, key=lambda sample: sample.rss).rss
        errors = ", ".join(f"{count} x {error}" for error, count in sorted(load.errors.items())) or "0"
        rows = [
            ("server", f"lastcall {__version__}, CPython {platform.python_version()}, {' '.join(self.options)}"),
            ("duration", f"{self.duration:g} s (seed {self.seed})"),
            ("connections", f"{sum(load.connections.values()):,} in {len(load.connections)} scenarios"),
            ("requests answered rightly", f"{load.requests:,}"),
            ("errors", errors),
            ("RSS at start, warm, end", f"{_mib(start.rss)}, {_mib(self.warm)}, {_mib(end.rss)} (peak {_mib(peak)})"),
            ("RSS growth after the warm-up", f"{_mib(self.growth)} (bound {_mib(self.bound)})"),
            ("descriptors at start, most, end", _three(start.fds, [one.fds for one in self.during], end.fds)),
            ("tasks at start, most, end", _three(start.tasks, [one.tasks for one in self.during], end.tasks)),
            ("objects at start, most, end", _three(start.objects, [one.objects for one in self.during], end.objects)),
            ("CPU of server, clients", f"{end.cpu - start.cpu:.1f} s, {load.cpu:.1f} s"),
            ("SIGTERM", f"exit code {self.exit_code} after {self.stop_seconds:.2f} s"),
        ]
        return "\n".join(["| soak | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""])

    def write(self, path: Path) -> None:
        """Write everything but the log to ``path`` as JSON."""
        figures = {name: value for name, value in vars(self).items() if name != "stderr"}
        figures.update(bound=self.bound, failures=self.failures(), table=self.table())
        path.write_text(json.dumps(figures, default=vars, indent=1) + "\n")

    def publish(self, page: Path) -> None:
        """Put the table between the page's ``bench:soak`` markers."""
        page.write_text(replace_section(page.read_text(), "soak", self.table()))


def unexpected(stderr: str) -> list[str]:
    """The records of a server's log that none of the application's faults explains."""
    found = []
    for record in RECORD.split(stderr):
        text = record.replace(SHUT_DOWN + "\n", "").rstrip("\n")
        if not text or EXPECTED_ERRORS.fullmatch(text):
            continue
        if not text.startswith("INFO: ") or "\n" in text or "internal error" in text:
            found.append(text)
    return found


def _mib(n: float) -> str:
    return f"{n / MIB:.1f} MiB"


def _three(start: int, during: Sequence[int], end: int) -> str:
    return f"{start:,}, {max(during):,}, {end:,}"

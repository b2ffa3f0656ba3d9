"""From samples to Markdown: medians, spreads, ratios, tables, and their place in the documentation. All pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .catalogue import LIMIT_TARGET, Server, Workload
from .errors import BenchError


@dataclass(frozen=True)
class Sample:
    """One server under one workload in one round: CPU of the whole server in µs per request, and requests/s."""

    server: str
    workload: str
    round: int
    cpu_us: float
    per_second: float


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Summarise at least one value."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def text(self, unit: str = "") -> str:
        """`median (low-high)`, each with three significant digits."""
        return f"{digits(self.median)}{unit} ({digits(self.low)}-{digits(self.high)})"


@dataclass(frozen=True)
class Comparison:
    """How many times the CPU of `ours` the `other` server uses under one workload; above 1 ours needs less.

    `ratio` is that of the medians, `low` and `high` are the least and the greatest of the rounds' own ratios: they were
    measured next to each other, so that what slows the machine for a while slows both.
    """

    other: str
    ratio: float
    low: float
    high: float

    def text(self) -> str:
        """`ratio (low-high)`."""
        return f"{self.ratio:.2f} ({self.low:.2f}-{self.high:.2f})"

    def verdict(self, target: float) -> str:
        """Whether `ratio` reaches `target`; "open" when the rounds disagree about it."""
        if self.low < target <= self.high:
            return "open"
        return "met" if self.ratio >= target else "missed"


def digits(value: float) -> str:
    """Three significant digits, without exponent: 7.62, 84.1, 690."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def thousands(value: float) -> str:
    """A rate rounded to three significant digits, thousands parted by a thin space: 131 000."""
    step = 10 ** max(len(str(int(value))) - 3, 0)
    return f"{round(value / step) * step:,}".replace(",", "\u202f")


def spread(samples: Iterable[Sample], server: str, workload: str) -> Spread | None:
    """CPU per request of one server under one workload; None if it has no sample."""
    values = [s.cpu_us for s in samples if (s.server, s.workload) == (server, workload)]
    return Spread.of(values) if values else None


def rate(samples: Iterable[Sample], server: str, workload: str) -> float:
    """Median requests per second of one server under one workload, 0 without a sample."""
    values = [s.per_second for s in samples if (s.server, s.workload) == (server, workload)]
    return statistics.median(values) if values else 0.0


def compare(samples: Sequence[Sample], ours: str, other: str, workload: str) -> Comparison | None:
    """Compare two servers under one workload; None unless both have samples and share a round."""
    mine = {s.round: s.cpu_us for s in samples if (s.server, s.workload) == (ours, workload)}
    theirs = {s.round: s.cpu_us for s in samples if (s.server, s.workload) == (other, workload)}
    shared = mine.keys() & theirs.keys()
    if not shared:
        return None
    ratios = [theirs[r] / mine[r] for r in shared]
    ratio = statistics.median(theirs.values()) / statistics.median(mine.values())
    return Comparison(other, ratio, min(ratios), max(ratios))


def best_peer(samples: Sequence[Sample], peers: Iterable[str], workload: str) -> str | None:
    """The peer with the least median CPU per request under the workload; None if none has a sample."""
    medians = {peer: found.median for peer in peers if (found := spread(samples, peer, workload))}
    return min(medians, key=medians.__getitem__, default=None)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def load_table(samples: Sequence[Sample], servers: Sequence[Server], workloads: Sequence[Workload]) -> str:
    """The table of the load benchmark: a row per server, then how lastcall compares, workload by workload."""
    head = ["server CPU in µs per request: median (min-max); requests/s", *(w.name for w in workloads)]
    rows = []
    for server in servers:
        cells = []
        for workload in workloads:
            found = spread(samples, server.name, workload.name)
            requests = thousands(rate(samples, server.name, workload.name))
            cells.append(f"{found.text()}; {requests}" if found else "-")
        if any(cell != "-" for cell in cells):
            rows.append([server.label, *cells])
    peers = [server.name for server in servers if server.role == "peer"]
    for ours in (server.name for server in servers if server.role == "ours"):
        if any(sample.server == ours for sample in samples):
            rows += _comparison_rows(samples, ours, peers, workloads)
            rows += _limit_rows(samples, ours, [s.name for s in servers if s.role == "limit"], workloads)
    return table(head, rows)


def _comparison_rows(
    samples: Sequence[Sample], ours: str, peers: Sequence[str], workloads: Sequence[Workload]
) -> list[list[str]]:
    """Best peer over ours in CPU, with the target and the verdict, and ours over best peer in requests/s."""
    cpu, requests = [f"**best peer ÷ {ours}, CPU**"], [f"{ours} ÷ that peer, requests/s"]
    for workload in workloads:
        peer = best_peer(samples, peers, workload.name)
        found = compare(samples, ours, peer, workload.name) if peer else None
        if peer is None or found is None:
            cpu.append("-")
            requests.append("-")
            continue
        cpu.append(f"{found.text()} {peer}; target {workload.target:g}: {found.verdict(workload.target)}")
        requests.append(f"{rate(samples, ours, workload.name) / rate(samples, peer, workload.name):.2f}")
    return [cpu, requests]


def _limit_rows(
    samples: Sequence[Sample], ours: str, limits: Sequence[str], workloads: Sequence[Workload]
) -> list[list[str]]:
    """Ours over the C loop in CPU; a target exists for plain alone."""
    rows = []
    for limit in limits:
        row = [f"{ours} ÷ C loop, CPU"]
        for workload in workloads:
            found = compare(samples, limit, ours, workload.name)  # ours as multiples of the limit
            if found is None:
                row.append("-")
            elif workload.name == "plain":
                reached = "met" if found.ratio <= LIMIT_TARGET else "missed"
                verdict = "open" if found.low <= LIMIT_TARGET < found.high else reached
                row.append(f"{found.text()}; at most {LIMIT_TARGET:g}: {verdict}")
            else:
                row.append(found.text())
        if any(cell != "-" for cell in row[1:]):
            rows.append(row)
    return rows


def version_lines(found: Mapping[str, Mapping[str, str]], common: Iterable[str]) -> list[str]:
    """A line with every server's own versions, one with those of the common packages, and a warning if they differ."""
    shared = tuple(common)
    own = []
    for server, versions in found.items():
        mine = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in shared)
        if mine:
            own.append(mine if mine.startswith(server) else f"{server}: {mine}")
    lines = ["Servers: " + "; ".join(own) + "."] if own else []
    variants = {tuple(versions.get(name, "?") for name in shared) for versions in found.values() if versions}
    for variant in sorted(variants):
        lines.append("Application: " + ", ".join(f"{n} {v}" for n, v in zip(shared, variant, strict=True)) + ".")
    if len(variants) > 1:
        lines.append("The venvs hold different versions of the application's packages: run with `--refresh`.")
    return lines


def replace_section(page: str, section: str, text: str) -> str:
    """Put `text` between the page's markers `<!-- bench:SECTION -->` and `<!-- /bench:SECTION -->`.

    Raises BenchError when the page does not have each marker once, in this order.
    """
    begin, end = f"<!-- bench:{section} -->", f"<!-- /bench:{section} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise BenchError(f"the page needs one line {begin} and, below it, one line {end}")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.partition(end)[2]}"

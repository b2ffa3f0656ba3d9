"""The tables of `fleet`: medians, ratios and verdicts. All pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TypeVar

from .. import report
from ..report import Spread
from .crash import Crash
from .parent import Idle
from .reload import APPS, Reloaded
from .roll import Rolled

T = TypeVar("T")
Rounds = Mapping[int, T]
"""What was found in each round that did not fail, by the round's number."""

# What issue 11 asks for.
SCALING_TARGET = 1.7  # two workers ÷ one, requests/s
RSS_TARGET = 30.0  # MiB of the parent
IDLE_TARGET = 0.0005  # of a core: less counts as none
BEYOND_TARGET = 2.0  # seconds of a roll beyond the application's own
ROLL_TARGET = 0.5  # ours ÷ the fastest of ROLL_PEERS that loses nothing
ROLL_PEERS = ("uvicorn", "granian", "gunicorn", "gunicorn-uvicorn")
CRASH_TARGET = 0.1  # seconds beyond a boot
RELOAD_TARGET = 0.7  # ours ÷ uvicorn's


def verdict(reached: bool) -> str:
    """How the tables say it."""
    return "met" if reached else "missed"


def ratio(ours: Rounds[float], theirs: Rounds[float]) -> Spread | None:
    """Ours ÷ theirs: that of the medians, with the least and greatest within one round; None without a shared round."""
    shared = ours.keys() & theirs.keys()
    if not shared:
        return None
    each = [ours[number] / theirs[number] for number in shared]
    return Spread(statistics.median(ours.values()) / statistics.median(theirs.values()), min(each), max(each))


def at_most(found: Spread, target: float, unit: str = "") -> str:
    """The verdict on a figure that should not be above the target; "open" when the rounds disagree."""
    if found.low <= target < found.high:
        return f"at most {target:g}{unit}: open"
    return f"at most {target:g}{unit}: {verdict(found.median <= target)}"


def at_least(found: Spread, target: float) -> str:
    """The verdict on a figure that should reach the target; "open" when the rounds disagree."""
    if found.low < target <= found.high:
        return f"at least {target:g}: open"
    return f"at least {target:g}: {verdict(found.median >= target)}"


def scaling(found: Mapping[str, Rounds[tuple[float, float]]], labels: Mapping[str, str], ours: str) -> str:
    """A row per server: requests/s with one worker, with two, and what two are worth."""
    rows = []
    for name, rounds in found.items():
        one, two = ({number: pair[at] for number, pair in rounds.items()} for at in (0, 1))
        worth = ratio(two, one)
        if worth is not None:
            goal = at_least(worth, SCALING_TARGET) if name == ours else "-"
            rows.append(
                [labels[name], Spread.of(one.values()).text(), Spread.of(two.values()).text(), worth.text(), goal]
            )
    head = ["2 ms of CPU per request", "1 worker, requests/s: median (min-max)", "2 workers", "2 ÷ 1", "target"]
    return report.table(head, rows)


def parents(found: Mapping[str, Idle], labels: Mapping[str, str], ours: str) -> str:
    """A row per server: the parent's memory, and CPU while nothing happens."""
    rows = []
    for name, idle in found.items():
        goal = "-"
        if name == ours:
            small, quiet = idle.rss / 2**20 <= RSS_TARGET, idle.cpu_ns / 1e9 / idle.seconds < IDLE_TARGET
            goal = f"at most {RSS_TARGET:g} MiB: {verdict(small)}; no CPU: {verdict(quiet)}"
        rows.append(
            [
                labels[name],
                f"{idle.rss / 2**20:.1f} MiB",
                f"{idle.cpu_ns / 1e6:.2f} ms",
                str(idle.wakeups),
                f"{idle.workers_cpu_ns / 1e6:.1f} ms",
                goal,
            ]
        )
    return report.table(["parent of 2 idle workers", "RSS", "CPU", "wake-ups", "CPU of its workers", "target"], rows)


def rolls(found: Mapping[str, Rounds[Rolled]], labels: Mapping[str, str], ours: str) -> str:
    """A row per server: the roll, the part that is not the application's, what was lost; then ours ÷ the fastest."""
    rows = []
    for name, rounds in found.items():
        if not rounds:
            continue
        each = list(rounds.values())
        beyond = Spread.of(one.beyond for one in each)
        rows.append(
            [
                labels[name],
                Spread.of(one.seconds for one in each).text() + " s",
                f"{statistics.median(one.own for one in each):.2f} s",
                beyond.text() + " s",
                " ".join(str(sum(one.lost.values())) for one in each),
                f"{sum(one.lost['kept'] for one in each)} + {sum(one.lost['fresh'] for one in each)}",
                report.digits(statistics.median(one.reconnects for one in each)),
                f"{Spread.of(one.slowest for one in each).text()} s",
                at_most(beyond, BEYOND_TARGET, " s") if name == ours else "-",
            ]
        )
    head = [
        "SIGHUP, 2 workers",
        "all replaced after: median (min-max)",
        "the application's own",
        "beyond",
        "lost, by round",
        "kept-alive + new",
        "reconnects",
        "slowest answer",
        "target",
    ]
    table = report.table(head, rows)
    if found.get(ours):
        table += "\n\n" + fastest(found, labels, ours)
    return table


def fastest(found: Mapping[str, Rounds[Rolled]], labels: Mapping[str, str], ours: str) -> str:
    """How ours compares with the fastest that loses no request: of those that the target names, and of all."""
    said = []
    times = {name: {number: one.seconds for number, one in rounds.items()} for name, rounds in found.items()}
    for which, names in (("the peers of the target", ROLL_PEERS), ("all that were measured", tuple(found))):
        clean = [
            name
            for name in names
            if name != ours and found.get(name) and not any(sum(one.lost.values()) for one in found[name].values())
        ]
        if not clean:
            said.append(f"Of {which} none lost no request.")
            continue
        best = min(clean, key=lambda name: statistics.median(times[name].values()))
        compared = ratio(times[ours], times[best])
        if compared is not None:
            goal = f"; {at_most(compared, ROLL_TARGET)}" if names is ROLL_PEERS else ""
            said.append(
                f"Of {which} {labels[best]} is the fastest that lost none: {labels[ours]} ÷ it is "
                f"{compared.text()}{goal}."
            )
    return " ".join(said)


def crashes(rounds: Rounds[Crash]) -> str:
    """One row: the time to the successor's answer, a boot, the difference, and what became of waiting requests."""
    each = list(rounds.values())
    added = Spread.of(one.added * 1000 for one in each)
    row = [
        Spread.of(one.back * 1000 for one in each).text() + " ms",
        Spread.of(one.boot * 1000 for one in each).text() + " ms",
        added.text() + " ms",
        at_most(added, CRASH_TARGET * 1000, " ms"),
        f"{sum(one.asked for one in each)}, {sum(one.lost for one in each)} lost",
        Spread.of(one.slowest * 1000 for one in each).text() + " ms",
    ]
    head = [
        "kill -9: its successor answers after, median (min-max)",
        "a worker's boot",
        "difference",
        "target",
        "asked meanwhile",
        "slowest answer of those",
    ]
    return report.table(head, [row])


def reloads(found: Mapping[tuple[str, str], Rounds[Sequence[Reloaded]]], labels: Mapping[str, str], ours: str) -> str:
    """A row per application: each server's time and losses, and ours ÷ uvicorn's."""
    names = list(dict.fromkeys(name for name, _ in found))
    rows = []
    for app, title in APPS.items():
        row, medians = [title], {}
        for name in names:
            rounds = found.get((name, app), {})
            each = [one for saves in rounds.values() for one in saves]
            if not each:
                row.append("-")
                continue
            medians[name] = {at: statistics.median(one.seconds for one in saves) for at, saves in rounds.items()}
            times = Spread.of(one.seconds * 1000 for one in each).text() + " ms"
            row.append(f"{times}; {sum(one.lost for one in each)} lost")
        compared = ratio(medians.get(ours, {}), medians.get("uvicorn", {}))
        row += [compared.text(), at_most(compared, RELOAD_TARGET)] if compared else ["-", "-"]
        rows.append(row)
    head = ["saved file to new answer: median (min-max)", *(labels[name] for name in names), "ours ÷ uvicorn", "target"]
    return report.table(head, rows)

"""How many CPUs this process may use: what ``--workers auto`` comes to.

A worker runs Python in one thread, so one per CPU is enough. ``os.cpu_count()`` is the machine's number, though: a
container that may use two of 64 CPUs would get 64 workers, which the kernel stops together for most of every 100 ms.
The limits are files of the control groups (cgroups(7)); of the own group and of each one above it, the least counts.

- Version 2: ``cpu.max``, ``QUOTA PERIOD`` in µs, the quota ``max`` without a limit.
- Version 1: ``cpu.cfs_quota_us``, -1 without a limit, and ``cpu.cfs_period_us``.

A fraction is rounded down: 2.5 CPUs are two workers and half a CPU for the parent and for threads. Three would be
stopped by the quota under load, and a stop of that kind is latency. Less than one CPU is one worker.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from lastcall.base.record import Record

_UP: Final = ".."
_OCTAL_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_NO_LIMIT: Final = 1 << 30


class Hierarchy(Record):
    """One mounted tree of control groups: its version, the group at its mount point, and where that is.

    ``top`` is a path as the process sees it: in a namespace of control groups it may begin with ``/..``.
    """

    version: int
    top: tuple[str, ...]
    mount: str


def available_cpus(root: str = "/") -> int:
    """The smallest of what affinity and the control groups leave, rounded down; at least 1.

    ``root`` is the directory in which ``proc`` and the mount points are looked for.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, quota_cpus(root)))


def quota_cpus(root: str = "/") -> int:
    """The whole CPUs that the control groups leave: 0 for less than one, a large number without a limit."""
    groups = parse_groups(_text(root, "/proc/self/cgroup"))
    hierarchies = parse_mounts(_text(root, "/proc/self/mountinfo"))
    return min(
        (
            _limit(root, directory, hierarchy.version)
            for hierarchy in hierarchies
            if hierarchy.version in groups
            for directory in directories(hierarchy, groups[hierarchy.version])
        ),
        default=_NO_LIMIT,
    )


def parse_groups(text: str) -> dict[int, tuple[str, ...]]:
    """The groups of this process in ``/proc/self/cgroup``, by version: those that can have a limit of CPU time.

    A line is ``HIERARCHY:CONTROLLERS:PATH``; that of version 2 is ``0::PATH``. Both may be there (hybrid).
    """
    groups = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon or not path.startswith("/"):
            continue
        path = path.removesuffix(" (deleted)")
        if number == "0" and not controllers:
            groups[2] = _components(path)
        elif "cpu" in controllers.split(","):
            groups[1] = _components(path)
    return groups


def parse_mounts(text: str) -> list[Hierarchy]:
    """The mounted trees in ``/proc/self/mountinfo`` that can have a limit of CPU time.

    A line is ``ID PARENT DEVICE TOP MOUNT OPTIONS [OPTIONAL…] - TYPE SOURCE SUPER-OPTIONS`` (proc(5)).
    """
    found = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(kind) < 3:
            continue
        top, mount = _components(_unescaped(fields[3])), _unescaped(fields[4])
        if kind[0] == "cgroup2":
            found.append(Hierarchy(2, top, mount))
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            found.append(Hierarchy(1, top, mount))
    return found


def directories(hierarchy: Hierarchy, group: tuple[str, ...]) -> Iterator[str]:
    """The directories of ``group`` and of those above it, as far up as the tree is mounted.

    Where the mounted tree begins above the root of our namespace (``/../..``), the names between are not known: only
    the group at the mount point, which is above ours, is looked at. Nothing, where the tree is another part than ours.
    """
    top = hierarchy.top
    if group[: len(top)] == top and _UP not in group[len(top) :]:
        below = group[len(top) :]
        for depth in range(len(below), -1, -1):
            yield os.path.join(hierarchy.mount, *below[:depth])
    elif top and set(top) == {_UP} and _ups(group) < len(top):
        yield hierarchy.mount


def _ups(group: tuple[str, ...]) -> int:
    return next((depth for depth, name in enumerate(group) if name != _UP), len(group))


def _limit(root: str, directory: str, version: int) -> int:
    """The limit of one group in whole CPUs; what is missing or not understood is none."""
    if version == 2:
        quota, _, period = _text(root, f"{directory}/cpu.max").strip().partition(" ")
    else:
        quota = _text(root, f"{directory}/cpu.cfs_quota_us").strip()
        period = _text(root, f"{directory}/cpu.cfs_period_us").strip()
    if not (quota.isascii() and quota.isdigit() and period.isascii() and period.isdigit()):
        return _NO_LIMIT  # "max", -1, or no such file
    with suppress(ValueError, ZeroDivisionError):  # more digits than int() takes
        return int(quota) // int(period) if int(quota) else _NO_LIMIT
    return _NO_LIMIT


def _components(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name and name != ".")


def _unescaped(field: str) -> str:
    """A field of mountinfo, in which a blank is its number in octal behind a backslash."""
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def _text(root: str, path: str) -> str:
    """The text of a file; "" if it cannot be read."""
    try:
        with open(os.path.join(root, path.lstrip("/")), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (OSError, ValueError):
        return ""

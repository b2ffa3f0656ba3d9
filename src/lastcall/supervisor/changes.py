"""What a reload may change: each option whose new value the parent cannot take, and what becomes of it. Pure.

All others come with the new generation's workers, and the parent takes its own part of them: the policy, the budgets of
the stop, the log's configuration. Flags and variables are those that the parent was started with. So a change comes
from what they name or depend on: the number of processors for ``auto``, the files of variables and of the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lastcall.base.record import Record

if TYPE_CHECKING:
    from lastcall.config import Config

ADDRESSES: Final = ("bind", "host", "port", "uds", "fd")
"""The parent has the listeners, and they stay: no reload brings others."""

REFUSED: Final = ("user", "group", "umask")
"""Whose the listeners and the workers are: half of a service would be somebody else's."""

RESTART: Final = (
    "backlog",  # of listeners that listen already
    "supervise",  # the parent is there
    "control_socket",
    "pidfile",
    "proc_title",
    "chdir",
    "drain_report",  # the file was opened, and drafted, as whoever the parent was then
    "reload",  # the watcher looks at what it was told at the start
    "reload_dirs",
    "reload_includes",
    "reload_excludes",
    "reload_delay",
)
"""Of the parent, from its start to its end."""


class Changes(Record):
    """What has changed that cannot: ``refusal`` is why there is no reload; ``kept`` options stay as they were."""

    refusal: str = ""
    kept: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """A line about those that are kept; empty where none is."""
        return f"Needs a restart, and stays as it was: {', '.join(self.kept)}." if self.kept else ""


def changes(old: Config, new: Config) -> Changes:
    """What of ``new`` a service that serves with ``old`` cannot take."""
    before, after = old.options.net.binds, new.options.net.binds
    if before != after:
        return Changes(
            f"the addresses have changed from {', '.join(map(str, before))} to {', '.join(map(str, after))}, "
            "which takes a restart"
        )
    if refused := _changed(REFUSED, old, new):
        return Changes(f"{', '.join(refused)} cannot change while the service runs, which takes a restart")
    return Changes(kept=_changed(RESTART, old, new))


def _changed(names: tuple[str, ...], old: Config, new: Config) -> tuple[str, ...]:
    return tuple(name for name in names if getattr(old, name) != getattr(new, name))

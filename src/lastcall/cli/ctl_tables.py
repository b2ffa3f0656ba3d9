"""What ``lastcall ctl`` shows of a service: facts in lines, the rest in tables.

For a terminal tables are drawn by rich, if it is installed; anywhere else they are columns of plain text. What a client
of the service has chosen (paths, say) reaches the terminal only in printable characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lastcall.base.record import Record

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = Mapping[str, Any]


class Table(Record):
    """Headings, and the cells of each row. ``right``: which columns are numbers."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]


class View(Record):
    """All there is to show: facts (label, value), a table, and what stands in its place where it is empty."""

    facts: tuple[tuple[str, str], ...] = ()
    table: Table | None = None
    empty: str = ""


class Column(Record):
    """A column: the field it shows, its heading, and how its values become text. ``right``: they are numbers."""

    field: str
    heading: str
    show: Callable[[Any], str]
    right: bool = False


def printable(value: object) -> str:
    """The text without what could steer a terminal: others than printable characters are escaped."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def lines(value: object) -> str:
    """``printable``, line by line."""
    return "\n".join(map(printable, str(value).split("\n")))


def seconds(value: object) -> str:
    """A time that has passed.

    >>> [seconds(one) for one in (0.0421, 7.26, 312, 7400, 200000)]
    ['0.04 s', '7.3 s', '5 min 12 s', '2 h 3 min', '2 d 7 h']
    """
    if not isinstance(value, int | float):
        return "-"
    if value < 60:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    for size, large, small_size, small in ((3600, "min", 1, "s"), (86400, "h", 60, "min"), (0, "d", 3600, "h")):
        if value < size or not size:
            unit = {"min": 60, "h": 3600, "d": 86400}[large]
            return f"{int(value // unit)} {large} {int(value % unit // small_size)} {small}"
    raise AssertionError


def size(value: object) -> str:
    """Bytes, in MiB."""
    return f"{value / 1048576:.0f} MiB" if isinstance(value, int | float) and value else "-"


def number(value: object) -> str:
    """A count; that of things by kind is their sum."""
    if isinstance(value, Mapping):
        value = sum(value.values())
    return "-" if value is None else printable(value)


def text(value: object) -> str:
    """Anything else."""
    if value is None or value == "":
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(printable(one) for one in value) or "-"
    return printable(value)


WORKERS: Final = (
    Column("worker", "worker", number, True),
    Column("slot", "slot", number, True),
    Column("generation", "gen", number, True),
    Column("pid", "pid", number, True),
    Column("state", "state", text),
    Column("age", "age", seconds, True),
    Column("in_flight", "in flight", number, True),
    Column("connections", "conns", number, True),
    Column("served", "served", number, True),
    Column("errors", "5xx", number, True),
    Column("rss", "memory", size, True),
)
INFLIGHT: Final = (
    Column("age", "age", seconds, True),
    Column("worker", "worker", number, True),
    Column("kind", "kind", text),
    Column("method", "method", text),
    Column("path", "path", text),
    Column("client", "client", text),
)
FACTS: Final[Mapping[str, tuple[str, Callable[[Any], str]]]] = {
    "app": ("application", text),
    "addresses": ("addresses", text),
    "pid": ("parent", number),
    "version": ("lastcall", text),
    "state": ("state", text),
    "doing": ("doing", text),
    "age": ("up for", seconds),
    "generation": ("generation", number),
    "degraded": ("degraded", text),
    "restarts": ("restarts", number),
}
"""What the status says of the service as a whole, in the order in which it is shown."""


def status_view(status: Row) -> View:
    """The answer to ``status``."""
    facts = []
    for field, (label, show) in FACTS.items():
        value = status.get(field)
        if isinstance(value, list | tuple) and field != "addresses":  # sentences, a line each
            facts += [(label, show(one)) for one in value]
        elif value not in (None, "", [], False, 0):
            facts.append((label, show(value)))
    workers = [one for one in status.get("workers") or () if isinstance(one, Mapping)]
    return View(tuple(facts), _table(WORKERS, workers), "no worker runs")


def inflight_view(requests: Sequence[Row]) -> View:
    """The answer to ``inflight``."""
    return View((), _table(INFLIGHT, requests), "nothing is in flight")


def services_view(services: Sequence[Row]) -> View:
    """The services that can be chosen from."""
    columns = (
        Column("name", "name", text),
        Column("app", "application", text),
        Column("addresses", "addresses", text),
        Column("pid", "pid", number, True),
        Column("path", "socket", text),
    )
    return View((), _table(columns, services), "")


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """The columns of which at least one row has something."""
    shown = [one for one in columns if any(one.field in row for row in rows)]
    return Table(
        tuple(one.heading for one in shown),
        tuple(tuple(one.show(row.get(one.field)) for one in shown) for row in rows),
        tuple(one.right for one in shown),
    )


def plain(view: View) -> str:
    """As plain text, which tools for text can read; no line is cut."""
    found = []
    width = max((len(label) for label, _ in view.facts), default=0)
    found += [f"{label:{width}}  {value}" for label, value in view.facts]
    table = view.table
    if table is None or not table.rows:
        return "\n".join([*found, view.empty] if view.empty else found)
    if found:
        found.append("")
    widths = [max(map(len, column)) for column in zip(table.headings, *table.rows, strict=True)]
    for row in (table.headings, *table.rows):
        cells = zip(row, widths, table.right, strict=True)
        found.append(
            "  ".join(f"{cell:>{wide}}" if right else f"{cell:{wide}}" for cell, wide, right in cells).rstrip()
        )
    return "\n".join(found)


def drawn(view: View) -> RenderableType:
    """As rich draws it. Nothing in it is taken for markup. Raises ImportError where rich is not installed."""
    from rich.console import Group  # noqa: PLC0415 - for tables only
    from rich.table import Table as Drawn  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    parts: list[RenderableType] = []
    if view.facts:
        facts = Drawn.grid(padding=(0, 2))
        for label, value in view.facts:
            facts.add_row(Text(label, style="dim"), Text(value))
        parts.append(facts)
    table = view.table
    if table is None or not table.rows:
        return Group(*parts, Text(view.empty)) if view.empty else Group(*parts)
    grid = Drawn(header_style="bold", show_edge=False, pad_edge=False)
    for heading, right in zip(table.headings, table.right, strict=True):
        grid.add_column(heading, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in table.rows:
        grid.add_row(*map(Text, row))
    return Group(*parts, *([Text("")] if parts else []), grid)

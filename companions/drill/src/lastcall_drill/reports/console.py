"""The matrix, a timeline and a summary for the terminal: with rich, and in plain text.

Where the servers' names do not fit, the columns are numbered and a legend says which is which; where not even the words
fit, the marks stand alone. The marks differ in shape, so nothing is lost without colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lastcall_drill.record import Record
from lastcall_drill.reports import facts, text
from lastcall_drill.verdicts import Result, Run, Verdict

if TYPE_CHECKING:
    from rich.text import Text

UNICODE = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.UNSUPPORTED: "\N{EN DASH}",
    Verdict.ERROR: "!",
    Verdict.UNREACHED: "?",
}
ASCII = {**UNICODE, Verdict.PASS: "+", Verdict.FAIL: "x", Verdict.UNSUPPORTED: "-"}
STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.UNSUPPORTED: "dim",
    Verdict.ERROR: "bold yellow",
    Verdict.UNREACHED: "dim",
}
_GAP = 2  # between columns
_LEAST = 5  # of a scenario's id, in the narrowest terminal
_MOST_LINES = 60  # of a timeline


Piece = tuple[str, str]  # words, and how rich is to style them
Line = list[Piece]


class Plan(Record):
    """How the matrix fits a width.

    ``first`` and ``columns`` are widths in characters. ``worded`` says whether the words of the verdicts fit.
    ``legend`` is empty unless the headings are numbers.
    """

    first: int
    columns: Sequence[int]
    headings: Sequence[str]
    worded: bool
    legend: Sequence[str] = ()


def plan(run: Run, width: int) -> Plan:
    """The richest form of the matrix that fits ``width`` characters; the poorest is cut rather than refused."""
    labels = [text.one_line(one.label) for one in run.servers]
    numbers = [str(number) for number in range(1, len(labels) + 1)]
    legend = tuple(f"{number} {label}" for number, label in zip(numbers, labels, strict=True))
    longest = max(len("scenario"), *(len(text.one_line(one.id)) for one in run.scenarios), 0)
    words = max(len(one.value) for one in Verdict) + 2
    forms = (
        Plan(longest, tuple(max(words, len(one)) for one in labels), labels, True),
        Plan(longest, tuple(max(1, len(one)) for one in labels), labels, False),
        Plan(longest, (words,) * len(labels), numbers, True, legend),
        Plan(longest, tuple(map(len, numbers)), numbers, False, legend),
    )
    for form in forms:
        if form.first + sum(form.columns) + _GAP * len(labels) <= width:
            return form
    last = forms[-1]
    first = max(_LEAST, width - sum(last.columns) - _GAP * len(labels))
    return Plan(first, last.columns, numbers, False, legend)


def table(run: Run, width: int = 120) -> Text:
    """The matrix in colours for rich, in a terminal of ``width`` characters. Raises ImportError without rich.

    No table of rich's: that would cut a group's heading to the width of the scenarios' ids.
    """
    from rich.text import Text  # noqa: PLC0415  an extra: the plain form needs none

    lines = (Text.assemble(*line) for line in _lines(run, width, unicode=True))
    return Text("\n").join(lines)


def plain_table(run: Run, width: int = 80, *, unicode: bool = True) -> str:
    """The matrix as lines of at most ``width`` characters (legends excepted), in ASCII on request."""
    lines = ("".join(words for words, _ in line).rstrip() for line in _lines(run, width, unicode=unicode))
    shown = "\n".join(lines)
    return shown if unicode else shown.encode("ascii", "backslashreplace").decode()


def _lines(run: Run, width: int, *, unicode: bool) -> Iterator[Line]:
    form = plan(run, width)
    found = facts.cells(run)
    marks, ellipsis = (UNICODE, "…") if unicode else (ASCII, "...")
    yield _row(form, ("scenario", "bold"), [(one, "bold") for one in form.headings], ellipsis)
    for group, scenarios in facts.groups(run):
        yield []
        yield [(text.shorten(text.one_line(group), width, ellipsis=ellipsis), "bold dim")]
        for one in scenarios:
            words = [(_words(result, form, marks), _style(result)) for result in facts.row(run, one, found)]
            yield _row(form, (text.one_line(one.id), ""), words, ellipsis)
    if form.legend:
        yield []
        yield from ([(one, "")] for one in form.legend)
    if not form.worded:
        yield []
        yield [(_key(marks, found), "")]


def timeline(result: Result) -> str:
    """The moments, one line each (neighbours of one kind share a line): when, what, of whom, and what more is known."""
    found = facts.stretches(result.moments)
    times = max((len(text.seconds(one.first.at)) for one in found), default=0)
    kinds = max((len(text.one_line(one.first.what)) for one in found), default=0)
    lines = [_moment(one, times, kinds) for one in found]
    if len(lines) > _MOST_LINES:
        half = _MOST_LINES // 2
        left_out = f"  {'…':>{times}}  {len(lines) - 2 * half} more lines"
        lines = [*lines[:half], left_out, *lines[-half:]]
    return "\n".join(lines)


def summary(run: Run) -> str:
    """One line: the first server's verdicts, which decide the exit code, then those of all others together."""
    found = facts.cells(run)
    size = f"{text.counted(len(run.scenarios), 'scenario')}, {text.counted(len(run.servers), 'server')}"
    if not run.servers:
        return f"{size}: nothing run"
    first, *others = run.servers
    said = f"{size}. {text.one_line(first.label)}: {facts.counts(facts.tally_of(run, first, found))}."
    if others:
        rest = facts.tally(found.get((one.label, each.id)) for one in others for each in run.scenarios)
        said += f" The {'other' if len(others) == 1 else 'others'}: {facts.counts(rest)}."
    surprising = sum(facts.unexpected(one) for one in found.values())
    return f"{said} {text.counted(surprising, 'verdict')} not as recorded." if surprising else said


def _moment(stretch: facts.Stretch, times: int, kinds: int) -> str:
    one = stretch.first
    said = ": ".join(filter(None, (text.one_line(one.who), text.one_line(one.detail))))
    if len(stretch.moments) > 1:
        more = f"{len(stretch.moments)} times, until {text.seconds(stretch.last.at)}"
        said = f"{said} ({more})" if said else more
    return f"  {text.seconds(one.at):>{times}}  {text.one_line(one.what):<{kinds}}  {said}".rstrip()


def _row(form: Plan, first: Piece, rest: Sequence[Piece], ellipsis: str) -> Line:
    name, style = first
    line = [(f"{text.shorten(name, form.first, ellipsis=ellipsis):<{form.first}}", style)]
    for (words, style), width in zip(rest, form.columns, strict=True):
        line += [(" " * _GAP, ""), (f"{words:<{width}}", style)]
    return line


def _words(result: Result | None, form: Plan, marks: dict[Verdict, str]) -> str:
    if result is None:
        return "."
    mark = marks[result.verdict]
    return f"{mark} {result.verdict.value}" if form.worded else mark


def _style(result: Result | None) -> str:
    return "dim" if result is None else STYLES[result.verdict]


def _key(marks: dict[Verdict, str], found: facts.Cells) -> str:
    there = facts.tally(found.values())
    return "  ".join(f"{mark} {verdict.value}" for verdict, mark in marks.items() if there[verdict]) + "  . not run"

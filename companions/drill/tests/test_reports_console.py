"""The matrix in the terminal, wide and narrow, with and without rich; the timeline; the summary."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from companions.drill.tests import samples
from lastcall_drill.record import replace
from lastcall_drill.reports import console
from lastcall_drill.verdicts import Moment, Result, Run, Source, Verdict

RUN = samples.run()


def rich_text(width: int, run: Run = RUN) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(console.table(run, width))
    return out.getvalue()


def test_a_wide_terminal_has_words() -> None:
    lines = console.plain_table(RUN, 100).splitlines()
    assert lines[0].split() == ["scenario", "lastcall", "uvicorn==0.21.1", "uvicorn", "hypercorn", "granian"]
    (row,) = [line for line in lines if line.startswith("workers-reaped")]
    assert row.split() == ["workers-reaped", "–", "unsupported", *["✓", "pass"] * 3, "!", "error"]  # noqa: RUF001


def test_a_narrow_terminal_has_marks_and_a_legend() -> None:
    shown = console.plain_table(RUN, 40)
    assert "second-signal           ✓  ✗  ✗  ✓  –\n" in shown  # noqa: RUF001
    assert "\n2 uvicorn==0.21.1\n" in shown
    assert "✓ pass  ✗ fail" in shown


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("form", ["plain", "rich"])
def test_no_line_is_wider_than_the_terminal(width: int, form: str) -> None:
    shown = rich_text(width) if form == "rich" else console.plain_table(RUN, width)
    matrix = shown.split("\n\n1 lastcall")[0].split("\n\n✓")[0]
    assert max(len(line.rstrip()) for line in matrix.splitlines()) <= width
    assert {"✓", "✗", "!"} <= set(matrix)


def test_ascii() -> None:
    shown = console.plain_table(RUN, 60, unicode=False)
    assert shown.isascii()
    assert "second-signal           +  x  x  +  -\n" in shown
    assert console.plain_table(samples.hostile(), 40, unicode=False).isascii()


def test_what_was_not_run_is_a_dot() -> None:
    partial = replace(RUN, results=RUN.results[1:])
    assert "endless-stream-ends     .  ✗" in console.plain_table(partial, 40)


@pytest.mark.parametrize("width", [50, 120])
def test_rich_and_plain_say_the_same(width: int) -> None:
    assert [line.rstrip() for line in rich_text(width).splitlines()] == console.plain_table(RUN, width).splitlines()


@pytest.mark.parametrize("form", ["plain", "rich"])
def test_the_heading_of_a_group_may_be_longer_than_the_ids_under_it(form: str) -> None:
    one = replace(RUN.scenarios[0], id="x", group="Applications that misbehave")
    run = replace(RUN, servers=RUN.servers[:1], scenarios=(one,), results=())
    shown = rich_text(60, run) if form == "rich" else console.plain_table(run, 60)
    assert [line.rstrip() for line in shown.splitlines()] == [
        "scenario  lastcall",
        "",
        "Applications that misbehave",
        "x         .",
    ]


def test_terminals_are_safe_from_labels() -> None:
    run = samples.hostile()
    for shown in (
        rich_text(100, run),
        console.plain_table(run),
        console.summary(run),
        console.timeline(run.results[0]),
    ):
        assert "\x1b" not in shown
        assert "\x00" not in shown
        assert "\u202e" not in shown


def test_markup_of_rich_in_names_is_text() -> None:
    run = replace(RUN, scenarios=(replace(RUN.scenarios[0], id="[red]x[/red]"),))
    assert "[red]x[/red]" in rich_text(100, run)


def test_the_plain_forms_need_no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rich", "rich.text"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "✓ pass" in console.plain_table(RUN, 100)
    assert "SIGTERM" in console.timeline(RUN.results[0])
    with pytest.raises(ImportError):
        console.table(RUN)


def test_timeline() -> None:
    moments = (
        Moment(0.0, Source.DRILL, "signal", "", "SIGTERM to 123"),
        Moment(-0.5, Source.CLIENT, "request", "first", "GET /inf"),
        Moment(0.2, Source.CLIENT, "bytes", "first", "14 bytes"),
        Moment(0.4, Source.CLIENT, "bytes", "first", "14 bytes"),
        Moment(0.4, Source.CLIENT, "bytes", "second"),
        Moment(12.0, Source.PROCESS, "killed"),
    )
    result = Result("s", "a", Verdict.FAIL, "", moments)
    assert console.timeline(result).splitlines() == [
        "   -0.500 s  request  first: GET /inf",
        "   +0.000 s  signal   SIGTERM to 123",
        "   +0.200 s  bytes    first: 14 bytes (2 times, until +0.400 s)",
        "   +0.400 s  bytes    second",
        "  +12.000 s  killed",
    ]
    assert console.timeline(Result("s", "a", Verdict.ERROR, "")) == ""


def test_a_long_timeline_keeps_its_ends() -> None:
    moments = tuple(Moment(n / 10, Source.APP, "note" if n % 2 else "bytes", str(n)) for n in range(200))
    lines = console.timeline(Result("s", "a", Verdict.FAIL, "", moments)).splitlines()
    assert len(lines) == 61
    assert lines[30].split() == ["…", "140", "more", "lines"]
    assert lines[-1].endswith("note   199")


def test_summary() -> None:
    assert console.summary(RUN) == (
        "10 scenarios, 5 servers. lastcall: 8 pass, 2 unsupported. "
        "The others: 26 pass, 11 fail, 2 unsupported, 1 error. 2 verdicts not as recorded."
    )
    alone = replace(RUN, servers=RUN.servers[:1], results=RUN.results[:10])
    assert console.summary(alone) == "10 scenarios, 1 server. lastcall: 8 pass, 2 unsupported."
    assert console.summary(replace(RUN, servers=(), results=())) == "10 scenarios, 0 servers: nothing run"

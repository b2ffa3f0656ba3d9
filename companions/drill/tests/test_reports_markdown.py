"""The matrix as Markdown: tables that are whole, links that fit the reference page, names that stay names."""

from __future__ import annotations

import re

from companions.drill.tests import samples
from lastcall_drill.record import replace
from lastcall_drill.reports import markdown

RUN = samples.run()


def columns(line: str) -> list[str]:
    return [one.strip() for one in re.split(r"(?<!\\)\|", line)[1:-1]]


def tables(written: str) -> list[list[list[str]]]:
    found: list[list[list[str]]] = [[]]
    for line in written.splitlines():
        if line.startswith("|"):
            found[-1].append(columns(line))
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_a_table_for_each_group_and_one_of_servers() -> None:
    written = markdown.matrix(RUN)
    assert re.findall("^### (.*)", written, re.MULTILINE) == [
        "Streams",
        "Plain requests",
        "Lifespan",
        "WebSockets",
        "Workers",
        "Servers",
    ]
    found = tables(written)
    assert [len(table) - 2 for table in found] == [3, 3, 2, 1, 1, 5]
    for table in found:
        assert {len(row) for row in table} == {len(table[0])}
        assert set(table[1]) == {"---"}


def test_servers_have_versions_and_the_run_a_date() -> None:
    written = markdown.matrix(RUN)
    assert written.startswith("Run on 2026-11-22T20:40:00Z, Linux 6.1, 2 cores, Debian 12, times scaled by 1. ")
    *_, servers = tables(written)
    assert tables(written)[0][0] == [
        "Scenario",
        "Asked by",
        "lastcall 0.1.0",
        "uvicorn==0.21.1",
        "uvicorn 0.54.0",
        "hypercorn 0.18.0",
        "granian 2.8.7",
    ]
    assert servers[3] == ["uvicorn==0.21.1", "0.21.1", "3.11.2", "7 pass, 3 fail", "`uvicorn subject:app --port 41214`"]


def test_cells_and_links() -> None:
    _, plain, *_ = tables(markdown.matrix(RUN))
    assert plain[3] == [
        "[A request in flight is answered](drill-scenarios.md#request-in-flight)",
        "our view",
        "✓ pass",
        "✓ pass",
        "✓ pass",
        "**✗ fail** (recorded: pass)",
        "✓ pass",
    ]
    other = markdown.matrix(replace(RUN, results=()), reference="../reference/x.md")
    assert "(../reference/x.md#idle-exit) | our view | not run | not run |" in other


def test_what_is_hostile_is_text() -> None:
    written = markdown.matrix(samples.hostile())
    for table in tables(written):
        assert {len(row) for row in table} == {len(table[0])}
    outside_of_code = re.sub(r"(`+) .*? \1", "", written)
    assert "<" not in outside_of_code
    assert "](javascript" not in outside_of_code

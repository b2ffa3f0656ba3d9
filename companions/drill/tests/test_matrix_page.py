"""The published matrix: made of reports, put together from several, and committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from companions.drill.tests import samples
from lastcall_drill.scenario import scenarios
from lastcall_drill.verdicts import Result, Run, Verdict, to_json
from scripts import drill_matrix
from testing.pages import page

RUN = samples.run()


def part(*labels: str, **other: object) -> Run:
    """The sample, with some of its servers, and other values in its fields."""
    servers = tuple(one for one in RUN.servers if one.label in labels)
    results = tuple(one for one in RUN.results if one.server in labels)
    return Run(**{**vars(RUN), "servers": servers, "results": results, **other})


def changed(run: Run, server: str, scenario: str, **other: object) -> Run:
    """The run with other values in one result."""
    results = tuple(
        Result(**{**vars(one), **other}) if (one.server, one.scenario) == (server, scenario) else one
        for one in run.results
    )
    return Run(**{**vars(run), "results": results})


def written(run: Run, path: Path) -> str:
    path.write_text(json.dumps(to_json(run)), encoding="utf-8")
    return str(path)


def test_several_reports_become_one_matrix() -> None:
    first = part("lastcall", date="2026-11-20T10:00:00+00:00")
    second = part("uvicorn==0.21.1", "granian", date="2026-11-22T10:00:00+00:00")
    run = drill_matrix.merged([first, second])
    assert [one.label for one in run.servers] == ["lastcall", "uvicorn==0.21.1", "granian"]
    assert len(run.results) == len(first.results) + len(second.results)
    assert run.date == "2026-11-20T10:00:00+00:00 to 2026-11-22T10:00:00+00:00"
    text = drill_matrix.page([first, second])
    assert "| Scenario | Asked by | lastcall 0.1.0 | uvicorn==0.21.1 | granian 2.8.7 |" in text
    assert RUN.machine in text.replace("\\", "")


def test_what_is_not_the_same_each_time_is_said() -> None:
    name = RUN.scenarios[0].id
    one = changed(part("lastcall"), "lastcall", name, verdict=Verdict.PASS)
    other = changed(one, "lastcall", name, verdict=Verdict.ERROR)
    assert drill_matrix.differing([one, other, one], "lastcall") == [
        (name, [Verdict.PASS, Verdict.ERROR, Verdict.PASS])
    ]
    seen = f"[{name}](drill-scenarios.md#{name}): pass, error, pass"
    assert f"| lastcall | 3 | {RUN.date[:10]} | {seen} |" in drill_matrix.page([one, other, one])
    assert f"| lastcall | 2 | {RUN.date[:10]} | nothing |" in drill_matrix.page([one, one])


def test_a_report_of_a_few_scenarios_is_not_a_run_of_all() -> None:
    whole = part("lastcall")
    some = part("lastcall", results=whole.results[:2], scenarios=whole.scenarios[:2])
    rest = part("lastcall", results=whole.results[2:], scenarios=whole.scenarios[2:])
    assert f"| lastcall | 1 | {RUN.date[:10]} | nothing |" in drill_matrix.page([some, rest])
    assert f"| lastcall | 1 to 2 | {RUN.date[:10]} | nothing |" in drill_matrix.page([some, whole])


def test_what_was_seen_of_a_failure_is_on_the_page_without_directories() -> None:
    name = RUN.scenarios[0].id
    sentence = "still running 5.0 s after the signal, see /home/me/lib/x.py of /fin\nand more of the output"
    run = changed(part("granian"), "granian", name, verdict=Verdict.FAIL, sentence=sentence)
    seen = drill_matrix.page([run]).partition("\n### granian 2.8.7\n")[2]
    assert (
        f"- [{name}](drill-scenarios.md#{name}): fail: still running 5.0 s after the signal, see x.py of /fin\n" in seen
    )
    passed = part("granian")
    for one in passed.results:
        passed = changed(passed, "granian", one.scenario, verdict=Verdict.PASS)
    assert drill_matrix.page([passed]).endswith("### granian 2.8.7\n\nNo fail, and no error.\n")


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("/home/me/.venv/bin/python -m x {app}", "python -m x {app}"),
        ("uvicorn {app} --uds {path}", "uvicorn {app} --uds {path}"),
        ('File "/usr/lib/python3/x.py"', 'File "x.py"'),
        ("GET /fin?n=1, https://example.org/a/b/c", "GET /fin?n=1, https://example.org/a/b/c"),
    ],
)
def test_directories_are_left_out(words: str, left: str) -> None:
    assert drill_matrix.without_directories(words) == left


def test_reports_that_do_not_fit_are_refused() -> None:
    with pytest.raises(drill_matrix.Disagreement):
        drill_matrix.merged([part("lastcall", scale=1.0), part("granian", scale=2.0)])
    newer = type(RUN.servers[0])(**{**vars(RUN.servers[0]), "version": "9.9"})
    with pytest.raises(drill_matrix.Disagreement, match=r"9\.9"):
        drill_matrix.merged([part("lastcall"), part("lastcall", servers=(newer,))])


def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill_matrix, "PAGE", tmp_path / "page.md")
    first, second = written(part("lastcall"), tmp_path / "1.json"), written(part("granian"), tmp_path / "2.json")
    drill_matrix.main([first, second])
    assert drill_matrix.PAGE.read_text(encoding="utf-8") == drill_matrix.page([part("lastcall"), part("granian")])


@pytest.mark.parametrize(("text", "reason"), [("{}", "format 1 was expected"), ("no", "Expecting value")])
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SystemExit, match=f"not a report of lastcall drill --json: .*{reason}"):
        drill_matrix.main([str(tmp_path / "x.json")])


def test_the_committed_page_has_every_scenario() -> None:
    committed = page("docs/reference/drill-matrix.md")
    assert committed.text.startswith(drill_matrix.HEAD)
    assert [one.id for one in scenarios() if f"(drill-scenarios.md#{one.id})" not in committed.text] == []
    assert "| not run |" not in committed.text

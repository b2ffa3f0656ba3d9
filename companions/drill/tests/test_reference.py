"""The reference pages say what the drill does: that of scenarios is made from their files, the other by hand."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import click
import pytest

from lastcall_drill import environments, reference
from lastcall_drill.appmode.judging import AFTER_GRACE, ROWS
from lastcall_drill.cli import main as command
from lastcall_drill.cli.end import INTERRUPTED
from lastcall_drill.record import Record
from lastcall_drill.runner import FEATURES
from lastcall_drill.scenario import scenarios
from lastcall_drill.servers import OPTIONS, programs
from lastcall_drill.verdicts import FORMAT, Moment, Result, Run, ScenarioInfo, ServerInfo, Source, Verdict
from testing.pages import page
from testing.tree import COMPANIONS, imports_of

SCENARIOS = page("docs/reference/drill-scenarios.md")
DRILL = page("docs/reference/drill.md")
IN_CI = page("docs/how-to/drill-in-ci.md")


# -- scenarios --------------------------------------------------------------------------------------------------------


def test_the_committed_page_is_up_to_date() -> None:
    made = reference.page()
    assert made == SCENARIOS.text, "run `python -m lastcall_drill.reference` in the root of the repository"


def test_the_module_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reference.PAGE.parent.mkdir(parents=True)
    reference.main([])
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page()
    reference.main(["elsewhere.md"])
    assert Path("elsewhere.md").read_text(encoding="utf-8") == reference.page()


def test_every_scenario_has_its_id_as_anchor() -> None:
    """Reports link there."""
    assert {one.id for one in scenarios()} <= SCENARIOS.anchors


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_options_are_those_of_the_command() -> None:
    documented = {name.strip("`"): default.strip("`") for name, default, _ in DRILL.rows("option", "default", "")}
    real = {}
    for param in command.drill_group.params:
        assert isinstance(param, click.Option)
        words = param.opts[0] if param.is_flag else f"{param.opts[0]} {param.metavar}"
        # Those that may be given several times have their default in the help.
        shown = re.search(r"\[([^][]*)\]$", param.help or "")
        real[words] = shown[1] if shown else ""
    assert documented == real


def test_the_commands() -> None:
    documented = {row[0].strip("`") for row in DRILL.rows("command", "")}
    context = click.Context(command.drill_group)
    names = command.drill_group.list_commands(context)
    assert documented == {"lastcall drill", *(f"lastcall drill {name}" for name in names)}


def test_the_exit_codes_on_both_pages() -> None:
    expected = {0, command.FAILED, click.UsageError.exit_code, command.NOT_HAD, INTERRUPTED}
    assert {int(row[0]) for row in DRILL.rows("code", "meaning")} == expected
    assert {int(row[0]) for row in IN_CI.rows("exit code", "")} == expected


def test_the_known_servers_are_named() -> None:
    assert f"({', '.join(sorted(programs()))})" in IN_CI.text


# -- verdicts and fairness --------------------------------------------------------------------------------------------


def test_the_verdicts() -> None:
    assert [row[0].strip("`") for row in DRILL.rows("verdict", "means")] == [one.value for one in Verdict]


def test_the_rows_of_an_application() -> None:
    rows = DRILL.section("With an application").rows("id", "passes if")
    assert [row[0].strip("`") for row in rows] == [one.id for one in ROWS]
    assert f"within the grace and {AFTER_GRACE:g} s" in rows[1][1]


def test_the_features() -> None:
    documented = {row[0].strip("`"): row[1] for row in DRILL.section("Features").rows("feature", "is")}
    offered = {word for one in programs().values() for word in (*one.features, *one.options)}
    assert set(documented) == offered | {"unix"}
    assert {name for one in scenarios() for name in one.needs} <= set(FEATURES)
    for name, words in FEATURES.items():
        assert documented[name].startswith(words)


def test_the_keys_of_the_servers() -> None:
    tables = tomllib.loads(files("lastcall_drill").joinpath("servers.toml").read_text("utf-8"))
    documented = {key.strip("` ") for row in DRILL.rows("key", "is") for key in row[0].split(",")}
    assert documented == {key for table in tables.values() for key in table} | set(OPTIONS)


def test_where_environments_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    where = environments.default_cache().relative_to(tmp_path)
    assert f"`~/{where}`" in DRILL.section("Environments").text
    assert f"path: ~/{where}\n" in IN_CI.text
    assert environments.FRESH == 86400, "once a day"


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "record"),
    [("Run", Run), ("Server", ServerInfo), ("Scenario", ScenarioInfo), ("Result", Result), ("Moments", Moment)],
)
def test_the_fields_of_the_json(heading: str, record: type[Record]) -> None:
    part = DRILL.text.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    fields = re.findall(r"^\| `(\w+)` \|", part.partition("| what | is |")[0], re.MULTILINE)
    assert fields == list(record._fields)
    if record is Moment:
        assert all(f"`{one.value}`" in part for one in Source)
        vocabulary = re.findall(r"``([\w-]+)``", (Moment.__doc__ or "").partition("vocabulary:")[2].partition(".")[0])
        words = re.findall(r"^\| `([\w-]+)` \|", part.partition("| what | is |")[2], re.MULTILINE)
        assert words == vocabulary


def test_the_format_of_the_json() -> None:
    assert f"`format` ({FORMAT})" in DRILL.section("JSON").text


# -- the claims of the explanation ------------------------------------------------------------------------------------


def test_the_application_of_the_drill_needs_the_standard_library_only() -> None:
    subject = [path for path in COMPANIONS if "drill_subject" in path.parts]
    assert {path.stem for path in subject} >= {"routes", "watch"}
    names = {name for path in subject for name in imports_of(path) if "drill_subject" not in name}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names

"""The reference page is made from the catalogue, committed, and complete."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from lastcall_doctor import rules_app, rules_host, rules_proxy, rules_stop
from lastcall_doctor.catalogue import CATALOGUE, GROUPS
from lastcall_doctor.reference import PAGE, main, page
from testing.tree import COMPANIONS, imports_of, module_name

ROOT = Path(__file__).parents[4]


def made() -> set[str]:
    """The ids in every ``Finding(…)`` of the rules."""
    calls = [
        node
        for module in (rules_app, rules_host, rules_stop, rules_proxy)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
    ]
    return {str(ast.literal_eval(call.args[0])) for call in calls}


def test_the_committed_page_is_up_to_date() -> None:
    committed = (ROOT / PAGE).read_text(encoding="utf-8")
    assert committed == page(), "run `python -m lastcall_doctor.reference` in the root of the repository"


def test_the_rules_make_what_the_catalogue_has() -> None:
    assert made() == set(CATALOGUE)


def test_the_doctor_sees_the_server_from_outside_only() -> None:
    """What runs the application does so by the command; what is imported is the options and the rules of the stop."""
    ours = {
        (module_name(path), name)
        for path in COMPANIONS
        if "lastcall_doctor" in path.parts
        for name in imports_of(path)
        if name.startswith("lastcall.")
    }
    assert {module for module, _ in ours} == {"lastcall_doctor.facts_server"}
    assert {name.split(".")[1] for _, name in ours} == {"base", "cli", "config", "drain"}
    assert {name for _, name in ours if ".drain." in name} == {"lastcall.drain.ladder.Budgets"}


def test_groups_are_those_of_the_findings() -> None:
    assert {entry.group for entry in CATALOGUE.values()} == set(GROUPS)


def test_the_module_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PAGE.parent.mkdir(parents=True)
    main([])
    assert PAGE.read_text(encoding="utf-8") == page()
    main(["elsewhere.md"])
    assert Path("elsewhere.md").read_text(encoding="utf-8") == page()

"""The reference page is made from the table, and committed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lastcall.config.options import OPTIONS
from lastcall.config.reference import PAGE, main, page

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_up_to_date() -> None:
    committed = (ROOT / PAGE).read_text(encoding="utf-8")
    assert committed == page(), "run `python -m lastcall.config.reference` in the root of the repository"


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_has_one_row_with_all_its_names(name: str) -> None:
    rows = [line for line in page().splitlines() if line.startswith("| ") and f"| `{name}` |" in line]
    assert len(rows) == 1
    for flag in OPTIONS[name].flags:
        assert flag in rows[0]
    if OPTIONS[name].env:
        assert f"`{OPTIONS[name].env}`" in rows[0]
    assert OPTIONS[name].default_text in rows[0]


def test_every_row_of_a_table_is_as_wide_as_its_head() -> None:
    width = 0
    for line in page().splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        width = width or cells
        assert cells == width, line


def test_the_module_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PAGE.parent.mkdir(parents=True)
    main([])
    assert PAGE.read_text(encoding="utf-8") == page()
    main(["elsewhere.md"])
    assert Path("elsewhere.md").read_text(encoding="utf-8") == page()

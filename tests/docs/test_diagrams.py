"""The diagrams in the pages are those of the tables in the code."""

from __future__ import annotations

import pytest

from lastcall.asgi import lifespan
from lastcall.drain import ladder
from scripts.diagrams import DIAGRAMS, PLACES, arrows, main, with_diagram


@pytest.mark.parametrize("name", PLACES)
def test_the_committed_diagram_is_up_to_date(name: str) -> None:
    committed = PLACES[name].read_text(encoding="utf-8")
    assert with_diagram(committed, name) == committed, "run scripts/diagrams.py"


def test_the_script_finds_nothing_to_do() -> None:
    assert main(["--check"]) == 0


@pytest.mark.parametrize("table", [ladder.TRANSITIONS, lifespan.TRANSITIONS], ids=["ladder", "lifespan"])
def test_a_diagram_has_every_move_and_nothing_else(
    table: dict[tuple[ladder.Phase, ladder.Input], ladder.Phase],
) -> None:
    moves = {(s.name, cause.value, t.name) for (s, cause), t in table.items() if s is not t}
    drawn = set()
    for line in arrows(table):
        states, _, causes = line.strip().partition(" : ")
        source, target = states.split(" --> ")
        drawn |= {(source, cause, target) for cause in causes.split(" / ")}
    assert drawn == moves


def test_the_ladder_says_what_each_phase_does() -> None:
    text = DIAGRAMS["ladder"]()
    for actions in ladder.ENTRY.values():
        for action in actions:
            assert action.value in text


def test_a_page_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs one pair"):
        with_diagram("# A page\n", "ladder")

"""Every promise about the stop has a test that exists, or says what it waits for."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from testing.pages import Page, page
from testing.proofs import NAME, names_in

PAGE = page("docs/reference/shutdown-guarantees.md")
LATER = ("with WebSocket", "with HTTP/2")
"""What a promise may wait for."""


def rows(one: Page) -> Iterator[list[str]]:
    """What, guarantee and proof, of every table whose last two columns are these."""
    for head in dict.fromkeys(re.findall(r"^\| ([^|]+) \| guarantee \| proved by \|$", one.text, re.MULTILINE)):
        yield from one.rows(head, "guarantee", "proved by")


FOUND = list(rows(PAGE))


def test_every_section_is_a_table() -> None:
    for heading in re.findall(r"^## (.+)$", PAGE.text, re.MULTILINE):
        assert list(rows(PAGE.section(heading))), heading


def test_the_failure_modes_are_numbered() -> None:
    numbers = [what for what, *_ in PAGE.rows("no.", "guarantee", "proved by")]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


@pytest.mark.parametrize(("what", "guarantee", "proof"), FOUND, ids=[row[0] for row in FOUND])
def test_every_guarantee_has_a_test_that_exists_or_waits_for_what_it_may(what: str, guarantee: str, proof: str) -> None:
    assert what
    assert guarantee.endswith(".")
    found = NAME.findall(proof)
    later = [word for word in LATER if word in proof]
    assert NAME.sub("", proof).replace(",", "").split() == " ".join(later).split(), "nothing but these two"
    assert found or later
    for path, name in found:
        assert name in names_in(path), f"{path} has no {name}"

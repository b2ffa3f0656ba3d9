"""Patterns: they find what ``re`` finds, in time linear in the text, and refuse what they do not know."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall_drill.cards.linear import Pattern, PatternError

ATOMS = st.sampled_from(
    ["a", "b", "c", ".", "[ab]", "[^a]", "[a-c]", r"\d", r"\w", r"\S", r"\.", "(a|bc)", "(?:b|)", "(ab|a)", "(a*)"]
)
PIECES = st.builds("".join, st.tuples(ATOMS, st.sampled_from(["", "", "*", "+", "?"])))
PATTERNS = st.builds(
    lambda start, pieces, end: start + "".join(pieces) + end,
    st.sampled_from(["", "^"]),
    st.lists(PIECES, min_size=1, max_size=6),
    st.sampled_from(["", "$", "|b", "|^c$"]),
)


@given(PATTERNS, st.text("abc1. ", max_size=12))
def test_it_finds_what_re_finds(pattern: str, text: str) -> None:
    found = Pattern(pattern, needs_literal=False).found_in(text)
    assert found is (re.search(pattern, text) is not None)


@given(PATTERNS, st.text("abc1. ", max_size=12))
def test_every_match_has_the_literal(pattern: str, text: str) -> None:
    if re.search(pattern, text):
        assert Pattern(pattern, needs_literal=False).literal in text


def test_it_does_not_backtrack() -> None:
    """``re`` would need 2 to the power of 5000 steps for this."""
    assert not Pattern("(a*)*(a|a)*x(a*)*end!").found_in("a" * 5000 + " end!")
    assert Pattern("(a*)*(a|a)*x(a*)*end!").found_in("a" * 5000 + "xend!")


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        (r"Cancel \d+ running task\(s\)", " running task(s)"),
        ("abcd?efgh+i", "abc"),
        ("(abcdef)?wxyz", "wxyz"),
        ("^plain text$", "plain text"),
    ],
)
def test_the_longest_literal_is_looked_for_first(pattern: str, literal: str) -> None:
    assert Pattern(pattern, needs_literal=False).literal == literal


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "x" * 501,
        "abc",
        "abcd|abcde",
        "(?=a)bcde",
        "a{3}bcde",
        "abcd(",
        "abcd)",
        "[abcd",
        "[z-a]bcde",
        "[\\D]abcd",
        "*abcd",
        "abcd**",
        "abcd\\1",
        "abcd\\",
        "(" * 21 + "abcd" + ")" * 21,
    ],
)
def test_what_it_does_not_know_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Pattern(pattern)

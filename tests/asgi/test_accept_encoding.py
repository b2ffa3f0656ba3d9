"""Which coding a client gets: RFC 9110 12.5.3, by its examples and by properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.asgi.accept_encoding import choose, weights

OFFERED = ("zstd", "br", "gzip")
CODINGS = ("zstd", "br", "gzip", "identity", "*", "deflate")
pairs = st.dictionaries(st.sampled_from(CODINGS), st.integers(0, 1000))
spaces = st.sampled_from(["", " ", "\t", "  "])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("compress, gzip", "gzip"),
        ("*", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("compress;q=0.5, gzip;q=1.0", "gzip"),
        ("gzip;q=1.0, identity; q=0.5, *;q=0", "gzip"),
        ("br;q=0.5, gzip;q=0.9", "gzip"),
        ("gzip;q=0", ""),
        ("identity, gzip;q=0.5", ""),
        ("identity;q=0", ""),
        ("*;q=0, br;q=0.001", "br"),
        ("GZIP;Q=1.000", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip;q=2", ""),
        ("gzip;q=0.1234, br;q=0.1", "br"),
        ("gzip;q=nan", ""),
        ("gzip;level=9", ""),
        ("not gzip", ""),
        ("gzip;q=1, gzip;q=0", ""),
        ("gzip;q=\uff11", ""),
    ],
)
def test_examples(line: str, expected: str) -> None:
    assert choose([line], OFFERED) == expected


def test_no_line_is_no_coding() -> None:
    assert weights([]) is None
    assert choose([], OFFERED) == ""


@given(pairs, spaces, spaces)
def test_what_was_written_is_read(given_weights: dict[str, int], before: str, after: str) -> None:
    line = ",".join(f"{before}{name}{after};{before}q={w / 1000:.3f}{after}" for name, w in given_weights.items())
    assert weights([line]) == given_weights


@given(st.lists(pairs, min_size=1, max_size=3))
def test_several_lines_are_one(lines: list[dict[str, int]]) -> None:
    texts = [", ".join(f"{name};q={weight / 1000:.3f}" for name, weight in line.items()) for line in lines]
    assert weights(texts) == weights([", ".join(texts)])


@given(pairs)
def test_nothing_refused_is_chosen_and_nothing_is_liked_more(given_weights: dict[str, int]) -> None:
    line = ", ".join(f"{name};q={weight / 1000:.3f}" for name, weight in given_weights.items())
    got = choose([line], OFFERED)
    of = {name: given_weights.get(name, given_weights.get("*", 0)) for name in OFFERED}
    best = max(of.values())
    if got:
        assert of[got] == best > 0
        assert best >= given_weights.get("identity", 0)
    else:
        assert best == 0 or best < given_weights.get("identity", 0)


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    assert choose([text], OFFERED) in ("", *OFFERED)

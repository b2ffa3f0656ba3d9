"""``--drain-close`` and ``--drain-finish``: which rule decides for a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.drain.policy import Policy, PolicyTable

CLOSE, FINISH, DEFAULT = Policy.CLOSE, Policy.FINISH, Policy.DEFAULT


@pytest.mark.parametrize(
    ("close", "finish", "path", "policy"),
    [
        ((), (), "/", DEFAULT),
        (("/events",), (), "/events", CLOSE),
        (("/events",), (), "/events/", DEFAULT),
        (("/events",), (), "/Events", DEFAULT),  # as paths are
        (("/events/*",), (), "/events/a/b", CLOSE),  # * crosses /
        (("/events/*",), (), "/events", DEFAULT),
        (("*",), (), "", CLOSE),
        (("/v?/log",), (), "/v2/log", CLOSE),
        (("/v[12]/log",), (), "/v3/log", DEFAULT),
        (("/a b/é",), (), "/a b/é", CLOSE),
        (("*",), ("/llm/*",), "/llm/1", FINISH),  # the longer pattern wins
        (("*",), ("/llm/*",), "/events", CLOSE),
        (("/llm/tail/*",), ("/llm/*",), "/llm/tail/1", CLOSE),
        (("/x/*",), ("*/y",), "/x/z", CLOSE),
        (("/x/*",), ("*/y/",), "/x/y/", CLOSE),  # of two that are equally long, close
        (("/x/*",), ("*/xy/",), "/x/xy/", FINISH),
        (("/same",), ("/same",), "/same", CLOSE),
        (("/a", "/b"), ("/c", "/d"), "/d", FINISH),
    ],
)
def test_the_longer_pattern_wins_and_close_a_tie(
    close: tuple[str, ...], finish: tuple[str, ...], path: str, policy: Policy
) -> None:
    assert PolicyTable(close, finish).policy(path) is policy


def test_how_many_rules_there_are() -> None:
    assert len(PolicyTable()) == 0
    assert len(PolicyTable(("/a", "/b"), ("/c",))) == 3


GLOBS = st.lists(st.sampled_from(["*", "/*", "/a*", "*b", "/a", "/ab", "/?b", "/a/b", "/[ab]", "/a/*"]), max_size=4)


@given(close=GLOBS, finish=GLOBS, path=st.sampled_from(["/", "/a", "/b", "/ab", "/a/b", "/a/b/c"]), data=st.data())
def test_the_order_on_the_command_line_does_not_matter(
    close: list[str], finish: list[str], path: str, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(close)), data.draw(st.permutations(finish))
    expected = PolicyTable(tuple(close), tuple(finish)).policy(path)
    assert PolicyTable(tuple(shuffled[0]), tuple(shuffled[1])).policy(path) is expected
    # Swapping the two lists swaps the answer, but for ties, which are always close.
    swapped = PolicyTable(tuple(finish), tuple(close)).policy(path)
    assert (expected is DEFAULT) == (swapped is DEFAULT)
    assert {expected, swapped} in ({DEFAULT}, {CLOSE, FINISH}, {CLOSE})

"""Programs that choose a listener, run by a small interpreter; ``test_slots`` has the kernel run them."""

from __future__ import annotations

import errno
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.net import steering
from lastcall.net.steering import WORD, Instruction, available, drop_newcomers, program
from testing.peer import filter_instructions


def run(steps: Sequence[Instruction], words: Iterator[int]) -> int:
    """What the program returns if these are the random numbers that it reads."""
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        match code:
            case steering.LOAD_WORD:
                assert operand == steering.RANDOM
                accumulator = next(words)
            case steering.MODULO:
                accumulator %= operand
            case steering.ADD:
                accumulator += operand
            case steering.AT_LEAST:
                at += if_true if accumulator >= operand else if_false
            case steering.RETURN:
                return operand
            case steering.RETURN_A:
                return accumulator
            case _:
                pytest.fail(f"instruction {code:#x}")


@given(st.data(), st.integers(1, 12))
def test_the_ordinary_ones_get_the_same_and_those_away_nothing(data: st.DataObject, count: int) -> None:
    away = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    favoured = data.draw(st.none() | st.integers(0, count - 1))
    ordinary = set(range(count)) - away - {favoured}
    if not ordinary:
        return
    steps = program(count, away=away, favoured=favoured)
    found = Counter(run(steps, iter([word])) for word in range(3 * len(ordinary)))
    assert found == dict.fromkeys(ordinary, 3)


@given(st.integers(2, 12), st.data(), st.floats(1e-6, 1 - 1e-6))
def test_the_favoured_one_gets_its_share_and_nobody_else_does(count: int, data: st.DataObject, share: float) -> None:
    favoured = data.draw(st.integers(0, count - 1))
    steps = program(count, favoured=favoured, share=share)
    border = round(share * WORD)
    assert run(steps, iter([border - 1])) == run(steps, iter([0])) == favoured
    others = {run(steps, iter([word, second])) for word in (border, WORD - 1) for second in range(count)}
    assert others == set(range(count)) - {favoured}


def test_shares_at_the_ends() -> None:
    assert run(program(3, favoured=1, share=1.0), iter([])) == 1
    assert run(program(3, away=(0, 2), favoured=1, share=0.1), iter([])) == 1, "nobody else is there"
    assert {run(program(3, favoured=2, share=0.0), iter([word])) for word in range(8)} == {0, 1}
    assert {run(program(3, away=(2,), favoured=2, share=0.5), iter([word])) for word in range(8)} == {0, 1}


@pytest.mark.parametrize(("count", "away", "favoured"), [(1, {0}, None), (3, {0, 1, 2}, None), (2, {0}, 1)])
def test_somebody_must_be_left(count: int, away: set[int], favoured: int | None) -> None:
    with pytest.raises(ValueError, match="no listener"):
        program(count, away=away, favoured=favoured)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
@pytest.mark.parametrize(("error", "verdict"), [(errno.ENOPROTOOPT, False), (errno.EMFILE, None)])
def test_a_system_without_programs_is_told_from_one_without_descriptors(
    monkeypatch: pytest.MonkeyPatch, error: int, verdict: bool | None
) -> None:
    assert available()

    def refuse(*_: object) -> None:
        raise OSError(error, "no")

    monkeypatch.setattr(steering, "_attach", refuse)  # a kernel of another kind is not to be had here
    if verdict is None:
        with pytest.raises(OSError, match="no"):
            available()
    else:
        assert available() is verdict


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_the_filter_is_put_on_once_and_says_where_it_cannot_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert drop_newcomers(sock)
        assert drop_newcomers(sock)
        assert filter_instructions(sock) == 4
    assert not drop_newcomers(sock)

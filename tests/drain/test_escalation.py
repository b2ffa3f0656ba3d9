"""How often somebody has asked: the debounce of a process group's doubled signals, and SIGQUIT's weight."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lastcall.drain.escalation import DEBOUNCE, Escalation


def presses(*signals: float | tuple[float, int]) -> tuple[int, list[bool]]:
    escalation = Escalation()
    counted = [
        escalation.press(*signal) if isinstance(signal, tuple) else escalation.press(signal) for signal in signals
    ]
    return escalation.level, counted


def test_three_signals() -> None:
    assert presses(1.0, 2.0, 3.0) == (3, [True, True, True])
    assert presses(1.0, 2.0, 3.0, 4.0) == (3, [True, True, True, False])


def test_the_first_signal_counts_at_any_time() -> None:
    assert presses(0.0) == (1, [True])
    assert presses(-5.0) == (1, [True])


def test_two_within_half_a_second_are_one() -> None:
    assert presses(1.0, 1.49) == (1, [True, False])
    assert presses(1.0, 1.0 + DEBOUNCE) == (2, [True, True])


def test_a_burst_is_one_however_long() -> None:
    """The time counts from the last one: whoever holds Ctrl-C down has asked once."""
    assert presses(*(1 + i * 0.4 for i in range(20)), 10.0) == (2, [True] + [False] * 19 + [True])


def test_sigquit_is_the_first_and_the_second() -> None:
    assert presses((1.0, 2)) == (2, [True])
    assert presses((1.0, 2), 2.0) == (3, [True, True])
    assert presses(1.0, (2.0, 2)) == (3, [True, True])


def test_a_debounced_sigquit_means_what_it_says() -> None:
    assert presses(1.0, (1.1, 2)) == (2, [True, True])
    assert presses((1.0, 2), 1.1) == (2, [True, False])
    assert presses((1.0, 2), (1.1, 2)) == (2, [True, False])


@given(st.lists(st.tuples(st.floats(0, 2), st.sampled_from([1, 2])), max_size=12))
def test_a_burst_is_worth_its_heaviest_signal(script: list[tuple[float, int]]) -> None:
    """The model: cut the signals into bursts at every gap of half a second or more."""
    escalation = Escalation()
    bursts: list[list[int]] = []
    now = 100.0
    for gap, weight in script:
        later = now + gap
        if not bursts or later - now >= DEBOUNCE:
            bursts.append([])
        now = later
        bursts[-1].append(weight)
        before = escalation.level
        counted = escalation.press(now, weight)
        assert counted == (escalation.level > before)
        assert before <= escalation.level <= 3
    # Inside a burst the level rises to the heaviest weight at least; each new burst adds its first.
    expected = 0
    for burst in bursts:
        expected = min(3, expected + burst[0])
        for weight in burst[1:]:
            expected = max(expected, weight)
    assert escalation.level == expected

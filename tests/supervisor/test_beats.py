"""The page of heartbeats."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator

import pytest

from lastcall.supervisor.beats import PLACES, Beats, resident


@pytest.fixture
def beats() -> Iterator[Beats]:
    page = Beats()
    yield page
    page.close()


def beat(page: Beats, place: int, when: float) -> None:
    """As a worker does, through the descriptor that it has got."""
    with mmap.mmap(page.fd, 0) as memory:
        memoryview(memory).cast("d")[place] = when


def test_the_age_of_a_beat_is_seen_through_another_mapping(beats: Beats) -> None:
    place = beats.take()
    assert beats.age(place, 100.0) is None
    beat(beats, place, 99.0)
    assert beats.age(place, 100.5) == 1.5
    beat(beats, place, 101.0)  # written after we looked at the clock
    assert beats.age(place, 100.5) == 0.0


def test_a_place_that_is_given_back_begins_anew(beats: Beats) -> None:
    place = beats.take()
    beat(beats, place, 5.0)
    beats.give_back(place)
    assert beats.take() == place
    assert beats.age(place, 100.0) is None


def test_no_two_workers_have_one_place_and_there_is_an_end(beats: Beats) -> None:
    assert len({beats.take() for _ in range(PLACES)}) == PLACES
    with pytest.raises(OSError, match="workers already"):
        beats.take()


def test_memory_of_a_process() -> None:
    before = resident(os.getpid())
    block = bytearray(os.urandom(1)) * (64 << 20)
    assert resident(os.getpid()) - before > 32 << 20
    assert block
    assert resident(1 << 30) == 0


def test_it_is_the_clock_of_the_fleet(beats: Beats) -> None:
    place = beats.take()
    beat(beats, place, time.monotonic())
    age = beats.age(place, time.monotonic())
    assert age is not None
    assert 0 <= age < 10

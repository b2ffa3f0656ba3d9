"""``Record`` behaves as a frozen dataclass does."""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar

import pytest

from lastcall.base.record import Record, replace


class Point(Record):
    x: int
    y: int = 0

    origin: ClassVar[str] = "here"


class Named(Point):
    y: int = 7
    name: str = "n"


def test_values_come_by_position_by_name_and_by_default() -> None:
    assert (Point(1).x, Point(1).y, Point(1, 2).y, Point(x=3, y=4).y) == (1, 0, 2, 4)


def test_a_subclass_adds_fields_behind_and_changes_defaults_in_place() -> None:
    assert repr(Named(1)) == "Named(x=1, y=7, name='n')"
    assert Named(1, 2, "m") == Named(name="m", y=2, x=1)
    assert Point(1).y == 0


def test_equal_means_the_same_class_and_the_same_values() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert Point(1, 2) != Point(2, 2)
    assert Point(1, 7) != Named(1)
    assert Point(1, 2) != (1, 2)


def test_nothing_can_be_changed() -> None:
    point = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del point.x
    assert point == Point(1)


@pytest.mark.parametrize(
    ("values", "named", "reason"),
    [
        ((), {}, "'x'"),
        ((1, 2, 3), {}, "3"),
        ((1,), {"x": 2}, "'x'"),
        ((1,), {"z": 2}, "'z'"),
        ((1,), {"origin": 2}, "'origin'"),
    ],
)
def test_arguments_that_do_not_fit(values: tuple[int, ...], named: dict[str, Any], reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        Point(*values, **named)


def test_replace_makes_a_copy() -> None:
    point = Named(1)
    assert replace(point, x=2) == Named(2)
    assert point == Named(1)
    with pytest.raises(TypeError):
        replace(point, z=1)


def test_copies_and_pickles_are_equal() -> None:
    point = Named(1, name="p")
    assert copy.copy(point) == copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point

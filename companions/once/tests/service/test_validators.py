"""The validator: what each validator takes, what it refuses in which words, and that its schema says the same."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall_once.service.routes import ROUTES
from lastcall_once.service.validators import (
    DEEPEST,
    AnyObject,
    AnyOf,
    Array,
    Boolean,
    Enumeration,
    Integer,
    Invalid,
    Map,
    Nullable,
    Number,
    Object,
    String,
    Validator,
)

NAME = String(1, 3, "[a-z]+", "letters")
THING = Object({"name": NAME, "n": Integer(1, 9)}, ("name",))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"in": [value]} if depth % 2 else {"in": value}
    return value


@pytest.mark.parametrize(
    ("validator", "value"),
    [
        (NAME, "abc"),
        (Integer(1, 9), 9),
        (Integer(1, 9), 2.0),
        (Number(0, 1), 0.5),
        (Boolean(), False),
        (Enumeration(("a", "b")), "b"),
        (Array(NAME, 2), ["a", "b"]),
        (Map(NAME, Integer(0, 1), 2), {"a": 1}),
        (AnyObject(), {"any": ["thing", None]}),
        (AnyObject(), nested(DEEPEST)),
        (Nullable(NAME), None),
        (Nullable(NAME), "a"),
        (THING, {"name": "a"}),
        (Object({}, extra=True), {"x": [1]}),
        (AnyOf((THING, Object({"id": NAME}, ("id",)))), {"id": "a"}),
    ],
)
def test_taken(validator: Validator, value: Any) -> None:
    assert validator.check(value, "f") == value
    assert jsonschema_rs.is_valid(validator.schema(), value)


@pytest.mark.parametrize(
    ("validator", "value", "field"),
    [
        (NAME, 1, "f"),
        (NAME, "", "f"),
        (NAME, "A", "f"),
        (NAME, "a\n", "f"),
        (String(), "\ud800", "f"),
        (Integer(1, 9), 0, "f"),
        (Integer(1, 9), True, "f"),
        (Integer(1, 9), 1.5, "f"),
        (Integer(1, 9), 10**400, "f"),
        (Integer(1, 9), "5", "f"),
        (Number(0, 1), 2, "f"),
        (Number(0, 1), float("nan"), "f"),
        (Boolean(), 1, "f"),
        (Enumeration(("a", "b")), "c", "f"),
        (Enumeration(("a", "b")), ["a"], "f"),
        (Array(NAME, 2), ["a", 1], "f.1"),
        (Array(NAME, 2), ["a"] * 3, "f"),
        (Map(NAME, Integer(0, 1), 2), {"a": 2}, "f.a"),
        (Map(NAME, Integer(0, 1), 2), {"A": 1}, "f"),
        (AnyObject(), [], "f"),
        (AnyObject(), nested(DEEPEST + 1), "f"),
        (THING, None, "f"),
        (THING, {}, "f.name"),
        (THING, {"name": "a", "m": 1}, "f.m"),
        (Object({"a": NAME}, least=1), {}, "f"),
        (
            Object({}, extra=True),
            {"x": nested(DEEPEST + 1)},
            "f.x",
        ),
        (AnyOf((THING, Object({"id": NAME}, ("id",)))), {}, "f.id"),
        (String(0, 9, "[a-z]*"), "x" * 8 + "Y", "f"),
    ],
)
def test_refused(validator: Validator, value: Any, field: str) -> None:
    with pytest.raises(Invalid) as told:
        validator.check(value, "f")
    assert told.value.field == field


def test_long_values_are_cut_short() -> None:
    with pytest.raises(Invalid, match=r"got 'x{59}\.\.\.$"):
        Enumeration(("a",)).check("x" * 1000, "f")


NAMES = sorted({name for route in ROUTES if isinstance(route.body, Object) for name in route.body.fields} | {"x"})
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
BODIES = [route.body for route in ROUTES if route.body is not None]


@given(st.sampled_from(BODIES), st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
def test_the_schema_of_every_body_says_what_is_checked(validator: Validator, value: Any) -> None:
    try:
        validator.check(value, "")
    except Invalid:
        taken = False
    else:
        taken = True
    assert jsonschema_rs.is_valid(validator.schema(), value) is taken or (
        taken is False and "key" in value and "tool" in value
    )

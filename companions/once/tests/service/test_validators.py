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
    ("validator", "value", "said"),
    [
        (NAME, 1, "f: expected a string, got 1"),
        (NAME, "", "f: expected 1 to 3 characters, got 0"),
        (NAME, "A", "f: expected letters, got 'A'"),
        (NAME, "a\n", "f: expected letters, got 'a\\n'"),
        (String(), "\ud800", "f: expected valid Unicode, got a lone surrogate"),
        (Integer(1, 9), 0, "f: expected an integer from 1 to 9, got 0"),
        (Integer(1, 9), True, "f: expected an integer from 1 to 9, got true"),
        (Integer(1, 9), 1.5, "f: expected an integer from 1 to 9, got 1.5"),
        (Integer(1, 9), 10**400, "f: expected an integer from 1 to 9, got a huge integer"),
        (Integer(1, 9), "5", "f: expected an integer from 1 to 9, got '5'"),
        (Number(0, 1), 2, "f: expected a number from 0 to 1, got 2"),
        (Number(0, 1), float("nan"), "f: expected a number from 0 to 1, got nan"),
        (Boolean(), 1, "f: expected true or false, got 1"),
        (Enumeration(("a", "b")), "c", "f: expected one of a, b, got 'c'"),
        (Enumeration(("a", "b")), ["a"], "f: expected one of a, b, got a list of 1"),
        (Array(NAME, 2), ["a", 1], "f.1: expected a string, got 1"),
        (Array(NAME, 2), ["a"] * 3, "f: expected a list of at most 2 values, got a list of 3"),
        (Map(NAME, Integer(0, 1), 2), {"a": 2}, "f.a: expected an integer from 0 to 1, got 2"),
        (Map(NAME, Integer(0, 1), 2), {"A": 1}, "f: expected letters, got 'A'"),
        (AnyObject(), [], "f: expected an object, got a list of 0"),
        (AnyObject(), nested(DEEPEST + 1), f"f: expected JSON that is nested {DEEPEST} deep at most"),
        (THING, None, "f: expected an object, got null"),
        (THING, {}, "f.name: expected a value: it is required"),
        (THING, {"name": "a", "m": 1}, "f.m: expected one of name, n"),
        (Object({"a": NAME}, least=1), {}, "f: expected at least 1 of a"),
        (
            Object({}, extra=True),
            {"x": nested(DEEPEST + 1)},
            f"f.x: expected JSON that is nested {DEEPEST} deep at most",
        ),
        (AnyOf((THING, Object({"id": NAME}, ("id",)))), {}, "f.id: expected a value: it is required"),
        (String(0, 9, "[a-z]*"), "x" * 8 + "Y", "f: expected [a-z]*, got 'xxxxxxxxY'"),
    ],
)
def test_refused(validator: Validator, value: Any, said: str) -> None:
    with pytest.raises(Invalid) as told:
        validator.check(value, "f")
    assert str(told.value) == said


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

"""A small declarative validator. A validator checks a value, and is the JSON Schema of the values that it takes.

Both come from the same fields, so that what the OpenAPI description says is what is checked. ``check`` returns the
value, or raises :class:`Invalid`, which names the field and what was expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

from lastcall_once._record import Record

DEEPEST = 32
_SHOWN = 60


class Invalid(Exception):
    """``field`` (a path with dots; empty: all of it) is not what was ``expected``."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field or 'the body'}: expected {expected}")
        self.field = field
        self.expected = expected


class Validator(Protocol):
    """What a value may be."""

    def check(self, value: Any, field: str) -> Any:
        """The value, as the service uses it. Raises Invalid."""

    def schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of what ``check`` takes."""


class String(Record):
    """A string of ``least`` to ``most`` characters that ``pattern``, a regular expression, fits as a whole."""

    least: int = 0
    most: int = 4096
    pattern: str | None = None
    about: str = ""

    def check(self, value: Any, field: str) -> str:
        """The string."""
        if not isinstance(value, str):
            raise Invalid(field, f"a string, got {shown(value)}")
        if not self.least <= len(value) <= self.most:
            raise Invalid(field, f"{self.least} to {self.most} characters, got {len(value)}")
        if self.pattern is not None and re.fullmatch(self.pattern, value) is None:
            raise Invalid(field, f"{self.about or self.pattern}, got {shown(value)}")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Invalid(field, "valid Unicode, got a lone surrogate") from None
        return value

    def schema(self) -> dict[str, Any]:
        """Of a string."""
        found: dict[str, Any] = {"type": "string", "minLength": self.least, "maxLength": self.most}
        if self.pattern is not None:
            found["pattern"] = f"^(?:{self.pattern})$"
        if self.about:
            found["description"] = self.about
        return found


class Integer(Record):
    """An integer from ``least`` to ``most``; in a query, its digits."""

    least: int
    most: int
    default: int | None = None

    def check(self, value: Any, field: str) -> int:
        """The integer. A number without a fraction counts as one."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not self.least <= value <= self.most:
            raise Invalid(field, f"an integer from {self.least} to {self.most}, got {shown(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        """Of an integer."""
        found: dict[str, Any] = {"type": "integer", "minimum": self.least, "maximum": self.most}
        return found if self.default is None else {**found, "default": self.default}


class Number(Record):
    """A number from ``least`` to ``most``."""

    least: float
    most: float

    def check(self, value: Any, field: str) -> float | int:
        """The number."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.least <= value <= self.most:
            raise Invalid(field, f"a number from {self.least:g} to {self.most:g}, got {shown(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        """Of a number."""
        return {"type": "number", "minimum": self.least, "maximum": self.most}


class Boolean(Record):
    """True or false."""

    def check(self, value: Any, field: str) -> bool:
        """The flag."""
        if not isinstance(value, bool):
            raise Invalid(field, f"true or false, got {shown(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        """Of a boolean."""
        return {"type": "boolean"}


class Enumeration(Record):
    """One of some words."""

    words: tuple[str, ...]
    default: str | None = None

    def check(self, value: Any, field: str) -> str:
        """The word."""
        if not isinstance(value, str) or value not in self.words:
            raise Invalid(field, f"one of {', '.join(self.words)}, got {shown(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        """Of an enumeration."""
        found: dict[str, Any] = {"type": "string", "enum": list(self.words)}
        return found if self.default is None else {**found, "default": self.default}


class Array(Record):
    """A list of up to ``most`` values of one kind."""

    of: Validator
    most: int

    def check(self, value: Any, field: str) -> list[Any]:
        """The list."""
        if not isinstance(value, list) or len(value) > self.most:
            raise Invalid(field, f"a list of at most {self.most} values, got {shown(value)}")
        return [self.of.check(each, f"{field}.{number}") for number, each in enumerate(value)]

    def schema(self) -> dict[str, Any]:
        """Of an array."""
        return {"type": "array", "items": self.of.schema(), "maxItems": self.most}


class Map(Record):
    """An object of up to ``most`` members, each with a name and a value of one kind."""

    names: String
    of: Validator
    most: int

    def check(self, value: Any, field: str) -> dict[str, Any]:
        """The object."""
        if not isinstance(value, dict) or len(value) > self.most:
            raise Invalid(field, f"an object of at most {self.most} members, got {shown(value)}")
        return {self.names.check(name, field): self.of.check(each, f"{field}.{name}") for name, each in value.items()}

    def schema(self) -> dict[str, Any]:
        """Of an object."""
        return {
            "type": "object",
            "propertyNames": self.names.schema(),
            "additionalProperties": self.of.schema(),
            "maxProperties": self.most,
        }


class AnyObject(Record):
    """Any JSON object, not nested deeper than ``DEEPEST``; the service stores it and looks at nothing in it."""

    about: str = ""

    def check(self, value: Any, field: str) -> dict[str, Any]:
        """The object."""
        if not isinstance(value, dict):
            raise Invalid(field, f"an object, got {shown(value)}")
        check_depth(value, field)
        return value

    def schema(self) -> dict[str, Any]:
        """Of any object."""
        about = f"{self.about} " if self.about else ""
        return {"type": "object", "description": f"{about}Nested {DEEPEST} deep at most."}


class Nullable(Record):
    """A value of a kind, or null."""

    of: Validator

    def check(self, value: Any, field: str) -> Any:
        """The value, or None."""
        return None if value is None else self.of.check(value, field)

    def schema(self) -> dict[str, Any]:
        """Of either."""
        return {"anyOf": [self.of.schema(), {"type": "null"}]}


class Object(Record):
    """An object with known members. ``extra``: others may be there too, and are kept; else they are refused.

    ``least`` is how many members there have to be, whichever.
    """

    fields: Mapping[str, Validator]
    required: tuple[str, ...] = ()
    extra: bool = False
    least: int = 0

    def check(self, value: Any, field: str) -> dict[str, Any]:
        """The object."""
        if not isinstance(value, dict):
            raise Invalid(field, f"an object, got {shown(value)}")
        dot = f"{field}." if field else ""
        for name in self.required:
            if name not in value:
                raise Invalid(dot + name, "a value: it is required")
        if len(value) < self.least:
            raise Invalid(field, f"at least {self.least} of {', '.join(self.fields)}")
        found = {}
        for name, each in value.items():
            if name in self.fields:
                found[name] = self.fields[name].check(each, dot + name)
            elif self.extra:
                check_depth(each, dot + _clipped(name))
                found[name] = each
            else:
                raise Invalid(dot + _clipped(name), f"one of {', '.join(self.fields)}" if self.fields else "nothing")
        return found

    def schema(self) -> dict[str, Any]:
        """Of an object."""
        found: dict[str, Any] = {
            "type": "object",
            "properties": {name: validator.schema() for name, validator in self.fields.items()},
            "additionalProperties": self.extra,
        }
        if self.required:
            found["required"] = list(self.required)
        if self.least:
            found["minProperties"] = self.least
        return found


class AnyOf(Record):
    """An object of one shape or another: of the first one whose required members are there, else the last."""

    shapes: tuple[Object, ...]

    def check(self, value: Any, field: str) -> dict[str, Any]:
        """The object."""
        names = value if isinstance(value, dict) else {}
        shape = next((each for each in self.shapes if set(each.required) <= names.keys()), self.shapes[-1])
        return shape.check(value, field)

    def schema(self) -> dict[str, Any]:
        """Of either."""
        return {"anyOf": [shape.schema() for shape in self.shapes]}


def check_depth(value: Any, field: str) -> None:
    """Raise Invalid for JSON that is nested deeper than ``DEEPEST``: not every reader gets to the end of it."""
    level: list[Any] = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise Invalid(field, f"JSON that is nested {DEEPEST} deep at most")


def shown(value: Any) -> str:
    """A value as an error says it: short, and in ASCII."""
    if isinstance(value, dict):
        return f"an object of {len(value)} members"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a huge integer"
    if isinstance(value, float) and math.isinf(value):
        return "an infinite number"
    return _clipped(ascii(value))


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

"""``Record``: what a frozen dataclass is, without the code that ``@dataclass`` compiles at every start.

lastcall has the same class, for the same reason; this package must not need it. Type checkers treat it as a dataclass
(PEP 681).
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, TypeVar, dataclass_transform

_MISSING = object()

R = TypeVar("R", bound="Record")


@dataclass_transform(frozen_default=True)
class Record:
    """Base of small immutable classes whose annotations are their fields, in order, those of the base class first.

    Defaults are shared by all instances, so they have to be immutable. Records are equal when they are of the same
    class and all their fields are. Raises TypeError, as any call does, for arguments that do not fit.
    """

    _fields: ClassVar[dict[str, Any]] = {}  # name: default

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        fields = dict(cls._fields)
        for name, annotation in cls.__annotations__.items():
            # Every module here has `from __future__ import annotations`: they are strings.
            if not annotation.startswith("ClassVar"):
                fields[name] = cls.__dict__.get(name, _MISSING)
        cls._fields = fields

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self._fields
        if len(values) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} values, not {len(values)}")
        given = dict(zip(fields, values, strict=False))
        for name, value in named.items():
            if name not in fields or name in given:
                raise TypeError(f"{type(self).__name__}: {'two values for' if name in given else 'no field'} {name!r}")
            given[name] = value
        for name, default in fields.items():
            if name not in given:
                if default is _MISSING:
                    raise TypeError(f"{type(self).__name__}: no value for {name!r}")
                given[name] = default
        self.__dict__.update(given)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *(self.__dict__[name] for name in self._fields)))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._fields)
        return f"{type(self).__qualname__}({shown})"


def replace(record: R, **changes: Any) -> R:
    """A copy of ``record`` with some fields changed. Raises TypeError for a name that is no field."""
    return type(record)(**{**record.__dict__, **changes})

"""Kinds of option values: how a value is read, what is accepted, and how help and reference call it.

A kind reads text (from the command line or the environment) and Python values alike, and returns the one form that
the rest of lastcall works with: times are float seconds with ``math.inf`` for "none", sizes are bytes.
"""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

from lastcall.base.record import Record

# Compiled packages keep sizes and counts in Py_ssize_t, sockets take a C int: nothing larger may get through.
LARGEST_INT = 2**31 - 1
LARGEST_SIZE = 2**63 - 1
# The sum of all budgets goes to the watchdog as a C time in nanoseconds, which ends at 9.2e9 seconds.
LONGEST_TIME = 10**9

LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")

_DIGITS = re.compile(r"[0-9]{1,19}")
_SIZE = re.compile(r"([0-9]{1,19})([KkMmGg]?)")
_OCTAL_MODE = re.compile(r"(0o|0)?[0-7]{1,3}")
_DECIMAL = re.compile(r"[0-9]{0,10}\.?[0-9]{1,20}")
_IMPORT_STRING = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_NO_HOST = re.compile(r"[\s\0/\[\]]")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%[^:]+)?")
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def is_host(text: str) -> bool:
    """Whether ``text`` may name a host: what has a colon is an IPv6 address, since a name and a port have one too."""
    if not text or _NO_HOST.search(text):
        return False
    return ":" not in text or _IPV6.fullmatch(text) is not None


class UnusableValueError(ValueError):
    """A kind cannot use a value.

    ``expected`` is a phrase that says what would have been right; ``value`` is the item of a list that is wrong,
    where there is one.
    """

    def __init__(self, expected: str, value: object = ...) -> None:
        super().__init__(expected)
        self.expected = expected
        self.value = value


class Kind(Record, ABC):
    """Base of all kinds.

    ``optional``: ``None`` is accepted and read as ``nothing``; so is the word ``none`` where ``none_as_text`` says so.
    ``repeatable``: the flag may be given several times; all values are read together.
    """

    optional: bool = False
    repeatable: bool = False

    none_as_text: ClassVar[bool] = False
    nothing: ClassVar[object] = None

    @property
    @abstractmethod
    def expected(self) -> str:
        """A phrase for "expected …", without the mention of ``none``."""

    @property
    @abstractmethod
    def annotation(self) -> str:
        """The type of the keyword in ``ConfigKeywords``, without ``| None``."""

    @property
    def metavar(self) -> str:
        """What stands for the value in ``--help`` and in the reference."""
        return "TEXT"

    @abstractmethod
    def convert(self, value: object) -> object:
        """Return the inner form of ``value``, which is not None. Raises :class:`UnusableValueError`."""

    def read(self, value: object) -> object:
        """Return the inner form of ``value`` (``nothing`` for None). Raises :class:`UnusableValueError`."""
        if value is None or (self.none_as_text and isinstance(value, str) and value.strip().lower() == "none"):
            if not self.optional:
                raise self.refusal()
            return self.nothing
        return self.convert(value)

    def split(self, text: str) -> list[str]:
        """Split the text of an environment variable into the values of a repeatable option."""
        return text.split()

    def show(self, value: object) -> str:
        """Return ``value`` (inner form) as help and reference print it."""
        return "none" if value is None else str(value)

    def refusal(self) -> UnusableValueError:
        """The error for a value that is not of this kind."""
        return UnusableValueError(f"{self.expected} or none" if self.optional and self.none_as_text else self.expected)


class Text(Kind):
    """A string. ``filled``: the empty one is refused."""

    placeholder: str = "TEXT"
    meaning: str = "text"
    filled: bool = False

    @property
    def expected(self) -> str:
        return self.meaning

    @property
    def annotation(self) -> str:
        return "str"

    @property
    def metavar(self) -> str:
        return self.placeholder

    def show(self, value: object) -> str:
        return "empty" if value == "" else super().show(value)

    def convert(self, value: object) -> str:
        if not isinstance(value, str) or (self.filled and not value) or "\0" in value:
            raise self.refusal()
        return value


class FilePath(Kind):
    """A path, as ``str`` or ``os.PathLike``. ``existing``: it has to name a regular file or the like now."""

    existing: bool = False

    @property
    def expected(self) -> str:
        return "the path of an existing file" if self.existing else "a path"

    @property
    def annotation(self) -> str:
        return "str | os.PathLike[str]"

    @property
    def metavar(self) -> str:
        return "PATH"

    def convert(self, value: object) -> str:
        if not isinstance(value, str | os.PathLike):
            raise self.refusal()
        path = os.fspath(value)
        if not isinstance(path, str) or not path or "\0" in path:
            raise self.refusal()
        if self.existing and (not os.path.exists(path) or os.path.isdir(path)):
            raise self.refusal()
        return path


class SocketPath(FilePath):
    """The path of a unix socket, without the ``unix:`` that belongs to ``--bind``: it would be a part of the name."""

    @property
    def expected(self) -> str:
        return "a path, as in /run/app.sock (unix: in front of it belongs to --bind)"

    def convert(self, value: object) -> str:
        path = super().convert(value)
        if path.startswith("unix:"):
            raise self.refusal()
        return path


class Host(Kind):
    """A host name or an address to listen on. Whether it exists is the resolver's affair."""

    @property
    def expected(self) -> str:
        return "a host name or an address, without brackets, port and scheme (0.0.0.0 is every IPv4 interface)"

    @property
    def annotation(self) -> str:
        return "str"

    @property
    def metavar(self) -> str:
        return "HOST"

    def convert(self, value: object) -> str:
        if not isinstance(value, str) or not is_host(value):
            raise self.refusal()
        return value


class OutputFile(FilePath):
    """A file that will be written in place: one that can be written to, or a new one in a directory that can.

    Read into an absolute path: the application may change the current directory before it is written.
    """

    @property
    def expected(self) -> str:
        return "a file that can be written, in a directory that exists"

    @property
    def metavar(self) -> str:
        return "FILE"

    def convert(self, value: object) -> str:
        path = super().convert(value)
        if not os.path.isabs(path):
            try:
                path = os.path.join(os.getcwd(), path)
            except OSError:  # the current directory has been removed
                raise self.refusal() from None
        directory, name = os.path.split(path)
        exists = os.path.exists(path)
        place = path if exists else directory
        if not name or os.path.isdir(place) == exists or not _writable(place):
            raise self.refusal()
        return path


class PathPrefix(Kind):
    """The start of a URL's path, below "/". Read without slashes at its end; "nothing" is the empty string."""

    nothing: ClassVar[object] = ""

    @property
    def expected(self) -> str:
        return "a path below /, as in /health, without ?, #, spaces and control characters"

    @property
    def annotation(self) -> str:
        return "str"

    @property
    def metavar(self) -> str:
        return "PREFIX"

    def convert(self, value: object) -> str:
        if value == "":
            return ""
        path = value.rstrip("/") if isinstance(value, str) else ""
        if not path.startswith("/") or any(c in " ?#" or not c.isprintable() for c in path):
            raise self.refusal()
        return path

    def show(self, value: object) -> str:
        return str(value) or "off"


class Switch(Kind):
    """On or off. ``form``: ``pair`` is ``--x/--no-x``, ``single`` is ``--x`` alone, ``value`` is ``--x true``."""

    form: Literal["value", "pair", "single"] = "pair"

    @property
    def expected(self) -> str:
        return "true or false"

    @property
    def annotation(self) -> str:
        return "bool"

    @property
    def metavar(self) -> str:
        return "BOOLEAN" if self.form == "value" else ""

    def convert(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            word = value.strip().lower()
            if word in _TRUE or word in _FALSE:
                return word in _TRUE
        raise self.refusal()

    def show(self, value: object) -> str:
        return "automatic" if value is None else "on" if value else "off"


class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        return either(self.words)

    @property
    def annotation(self) -> str:
        return "str"

    @property
    def metavar(self) -> str:
        return "|".join(self.words)

    def convert(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise self.refusal()
        return value


class Count(Kind):
    """A whole number from ``least`` to ``most``."""

    least: int = 0
    most: int = LARGEST_INT
    placeholder: str = "N"

    none_as_text: ClassVar[bool] = True

    @property
    def expected(self) -> str:
        if self.most in (LARGEST_INT, LARGEST_SIZE):
            return f"a whole number, {self.least} or more"
        return f"a whole number from {self.least} to {self.most}"

    @property
    def annotation(self) -> str:
        return "int"

    @property
    def metavar(self) -> str:
        return self.placeholder

    def convert(self, value: object) -> int:
        number = self.number(value)
        if number is None or not self.least <= number <= self.most:
            raise self.refusal()
        return number

    def number(self, value: object) -> int | None:
        """Return ``value`` as a plain int, or None if it is not a whole number (``True`` is none)."""
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            return int(value)
        return None


class Workers(Count):
    """A number of worker processes, or ``auto``, which stays a word until the machine is looked at."""

    least: int = 1

    @property
    def expected(self) -> str:
        return f"{super().expected}, or auto"

    @property
    def annotation(self) -> str:
        return "int | str"

    @property
    def metavar(self) -> str:
        return "N|auto"

    def convert(self, value: object) -> int | str:  # type: ignore[override]
        if isinstance(value, str) and value.strip().lower() == "auto":
            return "auto"
        return super().convert(value)


class Size(Count):
    """Bytes: a whole number; in text, a suffix ``K``, ``M`` or ``G`` stands for a power of 1024."""

    placeholder: str = "BYTES"

    @property
    def expected(self) -> str:
        return f"a number of bytes, {self.least} or more (as in 65536 or 64K)"

    def number(self, value: object) -> int | None:
        if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
            return int(match[1]) * _FACTORS[match[2].lower()]
        return super().number(value)


class Seconds(Kind):
    """A time in seconds, at most ``LONGEST_TIME``. ``positive``: 0 is refused. "None" is ``math.inf`` inside."""

    positive: bool = False

    none_as_text: ClassVar[bool] = True
    nothing: ClassVar[object] = math.inf

    @property
    def expected(self) -> str:
        return "a number of seconds above 0" if self.positive else "a number of seconds, 0 or more"

    @property
    def annotation(self) -> str:
        return "float"

    @property
    def metavar(self) -> str:
        return "SECONDS"

    def convert(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self.refusal()
        try:
            seconds = float(value)
        except (ValueError, OverflowError):
            raise self.refusal() from None
        if self.optional and seconds == math.inf and not isinstance(value, str):
            return math.inf
        if not math.isfinite(seconds) or seconds < 0 or (self.positive and seconds == 0):
            raise self.refusal()
        if seconds > LONGEST_TIME:
            raise UnusableValueError(f"at most {LONGEST_TIME} seconds{' or none' if self.optional else ''}")
        return seconds

    def show(self, value: object) -> str:
        return "none" if value == math.inf else f"{value:g}"


class Fraction(Kind):
    """A share: above 0, below 1."""

    none_as_text: ClassVar[bool] = True

    @property
    def expected(self) -> str:
        return "a share between 0 and 1 (as in 0.1)"

    @property
    def annotation(self) -> str:
        return "float"

    @property
    def metavar(self) -> str:
        return "SHARE"

    def convert(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self.refusal()
        if isinstance(value, str) and not _DECIMAL.fullmatch(value.strip()):
            raise self.refusal()
        try:
            share = float(value)
        except OverflowError:
            raise self.refusal() from None
        if not 0.0 < share < 1.0:  # NaN is neither
            raise self.refusal()
        return share


class Mode(Kind):
    """Permission bits: octal digits in text, a number in Python."""

    @property
    def expected(self) -> str:
        return "permissions in octal, as in 027"

    @property
    def annotation(self) -> str:
        return "int | str"

    @property
    def metavar(self) -> str:
        return "MODE"

    def convert(self, value: object) -> int:
        if isinstance(value, str) and _OCTAL_MODE.fullmatch(value.strip()):
            return int(value.strip().removeprefix("0o"), 8)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
            return int(value)
        raise self.refusal()

    def show(self, value: object) -> str:
        return f"{value:03o}" if isinstance(value, int) else "unchanged"


class LoopFactory(Kind):
    """``auto``, ``asyncio``, ``uvloop``, uvicorn's ``none``, an import string, or (in Python) a callable."""

    words: ClassVar[tuple[str, ...]] = ("auto", "asyncio", "uvloop", "none")

    @property
    def expected(self) -> str:
        return "auto, asyncio, uvloop, none or module:factory"

    @property
    def annotation(self) -> str:
        return "str | Callable[[], asyncio.AbstractEventLoop]"

    @property
    def metavar(self) -> str:
        return "auto|asyncio|uvloop|MODULE:FACTORY"

    def convert(self, value: object) -> str | Callable[..., object]:
        if isinstance(value, str):
            if value in self.words or _IMPORT_STRING.fullmatch(value):
                return value
        elif callable(value):
            return value
        raise self.refusal()


class LogLevel(Kind):
    """A level by name, in any case, or by number. 0 would be logging's NOTSET, which is no level."""

    @property
    def expected(self) -> str:
        return f"{either(LOG_LEVELS)}, or a number from 1"

    @property
    def annotation(self) -> str:
        return "str | int"

    @property
    def metavar(self) -> str:
        return "LEVEL"

    def convert(self, value: object) -> str | int:
        if isinstance(value, str) and value.strip().lower() in LOG_LEVELS:
            return value.strip().lower()
        number = Count().number(value)
        if number is None or not 1 <= number <= LARGEST_INT:
            raise self.refusal()
        return number

    def show(self, value: object) -> str:
        return "info" if value is None else str(value)


class Anything(Kind):
    """A Python object that is passed on as it is. Text is taken for a path or a name."""

    placeholder: str = "PATH"
    python_type: str = "object"

    @property
    def expected(self) -> str:
        return "a value"

    @property
    def annotation(self) -> str:
        return self.python_type

    @property
    def metavar(self) -> str:
        return self.placeholder

    def convert(self, value: object) -> object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value


def _writable(path: str) -> bool:
    """Whether this process could write there, as far as permissions say; those of its effective user where possible."""
    mode = os.W_OK | os.X_OK if os.path.isdir(path) else os.W_OK
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def either(words: tuple[str, ...]) -> str:
    """Return ``"a, b or c"``."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]

"""From TOML to cards. An error names the file, the field, and what was expected there."""

from __future__ import annotations

import re
import signal
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from lastcall_drill.cards.conditions import STILL_RUNNING, Conditions, version_range
from lastcall_drill.cards.format import (
    FORMAT,
    NONE_KNOWN,
    OBSERVATIONS,
    STEPS,
    Card,
    Cause,
    Confidence,
    Field,
    Fix,
    Lastcall,
    Observation,
    Reproduction,
    Role,
    Row,
    Setup,
    Signature,
    Step,
)
from lastcall_drill.cards.linear import Pattern, PatternError
from lastcall_drill.errors import DrillError

T = TypeVar("T")

CATALOGUE: Final = Path(__file__).with_name("catalogue")
PLACEHOLDERS: Final = ("{port}",)
ID: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ID_WORDS: Final = "lower-case letters, digits and single hyphens"

_PYTHON: Final = re.compile(r"\d+\.\d+(\.\d+)?")
_BRACES: Final = re.compile(r"\{[^}]*\}")
_CHANGES: Final = ("release", "options", "app", "python", "deployment")


class CardError(DrillError):
    """A card that cannot be used. ``file`` and ``field`` say where, ``expected`` what should be there."""

    def __init__(self, file: Path, field: str, expected: str, found: object = None) -> None:
        self.file = file
        self.field = field
        self.expected = expected
        given = "" if found is None else f", not {found!r}"
        where = f"{file.name}: {field}" if field else file.name
        super().__init__(f"{where}: expected {expected}{given}")


def catalogue(directory: Path = CATALOGUE) -> list[Card]:
    """All cards of a directory, by id. Raises CardError for the first that cannot be used."""
    cards = [load(path) for path in sorted(directory.glob("*.toml"))]
    return sorted(cards, key=lambda card: card.id)


def find(name: str, directory: Path = CATALOGUE) -> Card:
    """The card with this id, or in this file if the name ends in ``.toml``. Raises CardError."""
    if name.endswith(".toml"):
        return load(Path(name))
    path = directory / f"{name}.toml"
    if ID.fullmatch(name) and path.is_file():
        return load(path)
    known = ", ".join(sorted(one.stem for one in directory.glob("*.toml")))
    raise CardError(Path(name), "", f"the id of a card ({known}) or a file that ends in .toml")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CardError(path, "", f"a file that can be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise CardError(path, "", "UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise CardError(path, "", f"TOML ({error})") from None


def load(path: Path) -> Card:
    """The card in a file. Raises CardError."""
    data = _read(path)
    found = data.get("format")
    if found != FORMAT:
        raise CardError(path, "format", f"{FORMAT}, the format that this release reads", found)
    return _card(_Table(path, "", data))


class _Table:
    """A TOML table that is read field by field. What nobody has asked for in the end is an error."""

    def __init__(self, file: Path, name: str, data: Mapping[str, Any]) -> None:
        self.file = file
        self.name = name
        self._left = dict(data)

    def error(self, field: str, expected: str, found: object = None) -> CardError:
        """The error for one of its fields."""
        return CardError(self.file, f"{self.name}.{field}".strip("."), expected, found)

    def has(self, field: str) -> bool:
        """Whether it has a field that was not read yet."""
        return field in self._left

    def value(self, field: str, types: tuple[type, ...], expected: str) -> Any:
        """A field that has to be there."""
        if field not in self._left:
            raise self.error(field, f"{expected}, but there is no such field")
        value = self._left.pop(field)
        # bool is an int, for Python.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise self.error(field, expected, value)
        return value

    def text(self, field: str, expected: str = "a text") -> str:
        """A text that is not empty."""
        value: str = self.value(field, (str,), expected)
        if not value.strip():
            raise self.error(field, f"{expected} that is not empty")
        return value.strip()

    def texts(self, field: str, expected: str, least: int = 0) -> tuple[str, ...]:
        """A list of texts; without ``least`` it may be missing."""
        if not least and field not in self._left:
            return ()
        values = self.value(field, (list,), expected)
        if len(values) < least or not all(isinstance(one, str) and one for one in values):
            raise self.error(field, expected, values)
        return tuple(values)

    def seconds(self, field: str, default: float) -> float:
        """A number of seconds above 0."""
        if field not in self._left:
            return default
        value = self.value(field, (int, float), "a number of seconds above 0")
        if not value > 0:
            raise self.error(field, "a number of seconds above 0", value)
        return float(value)

    def choice(self, field: str, choices: Sequence[str]) -> str:
        """One of a few words."""
        value = self.text(field, f"one of {', '.join(choices)}")
        if value not in choices:
            raise self.error(field, f"one of {', '.join(choices)}", value)
        return value

    def pattern(self, field: str) -> Pattern:
        """A pattern, see :mod:`lastcall_drill.cards.linear`."""
        return self.compiled(field, self.value(field, (str,), "a pattern"))

    def compiled(self, field: str, text: object, *, needs_literal: bool = True) -> Pattern:
        """A pattern from its text."""
        if not isinstance(text, str):
            raise self.error(field, "a pattern", text)
        try:
            return Pattern(text, needs_literal=needs_literal)
        except PatternError as error:
            raise self.error(field, f"a pattern that can be used ({error})") from None

    def table(self, field: str) -> _Table:
        """A table in it."""
        return _Table(self.file, f"{self.name}.{field}".strip("."), self.value(field, (dict,), f"a table [{field}]"))

    def tables(self, field: str, expected: str, read: Callable[[_Table], T], least: int = 1) -> tuple[T, ...]:
        """A list of tables, each read by ``read``; errors number them from 1."""
        values = self.value(field, (list,), expected) if least or field in self._left else []
        if len(values) < least or not all(isinstance(one, dict) for one in values):
            raise self.error(field, expected, values)
        name = f"{self.name}.{field}".strip(".")
        found = []
        for number, one in enumerate(values, 1):
            table = _Table(self.file, f"{name}[{number}]", one)
            found.append(read(table))
            table.done()
        return tuple(found)

    def done(self) -> None:
        """Nothing more is read from it. Raises CardError for a field that is left."""
        for field in self._left:
            raise self.error(field, "no such field: it is unknown")


def _card(table: _Table) -> Card:
    table.value("format", (int,), "a number")
    name = table.text("id")
    if not ID.fullmatch(name):
        raise table.error("id", ID_WORDS, name)
    if name != table.file.stem:
        raise table.error("id", f"the name of the file, {table.file.stem!r}", name)
    fixes = _fixes(table)
    setups = table.tables("run", "a list of tables [[run]]", _setup)
    reproduction = _reproduction(table.table("reproduction"))
    card = Card(
        id=name,
        title=table.text("title"),
        summary=table.text("summary"),
        server=table.text("server"),
        affected=table.text("affected"),
        fixed=table.text("fixed"),
        signatures=table.tables("signature", "a list of tables [[signature]]", _signature, least=0),
        reproduction=reproduction,
        setups=setups,
        fixes=fixes,
        lastcall=_lastcall(table),
        sources=table.texts("sources", "a list of links or issue names, one at least", least=1),
        file=table.file,
        begins=table.pattern("begins") if table.has("begins") else None,
    )
    table.done()
    roles = [setup.role for setup in setups]
    if Role.BROKEN not in roles:
        raise table.error("run", 'a run with role = "broken"')
    if fixes and Role.FIXED not in roles:
        raise table.error("run", f'a run with role = "fixed", or fix = "{NONE_KNOWN}"')
    if not fixes and Role.FIXED in roles:
        raise table.error("run", f'no run with role = "fixed", since fix = "{NONE_KNOWN}"')
    _check_clients(table, reproduction)
    return card


def _fixes(table: _Table) -> tuple[Fix, ...]:
    expected = f'a list of tables [[fix]], or "{NONE_KNOWN}"'
    value = table.value("fix", (list, str), expected)
    if isinstance(value, str):
        if value != NONE_KNOWN:
            raise table.error("fix", expected, value)
        return ()
    return _Table(table.file, "", {"fix": value}).tables("fix", expected, _fix)


def _fix(table: _Table) -> Fix:
    changes = table.texts("changes", f"some of {', '.join(_CHANGES)}", least=1)
    for one in changes:
        if one not in _CHANGES:
            raise table.error("changes", f"some of {', '.join(_CHANGES)}", one)
    return Fix(title=table.text("title"), changes=changes, how=table.text("how"), not_when=table.text("not-when"))


def _signature(table: _Table) -> Signature:
    confidence = Confidence(table.choice("confidence", [one.value for one in Confidence]))
    lines: tuple[Pattern, ...]
    if table.has("text"):
        text = table.value("text", (str,), "a text")
        lines = (table.compiled("text", re.sub(r"([^\w\s])", r"\\\1", text)),)
    elif table.has("lines"):
        lines = _patterns(table, "lines", least=1)
    else:
        lines = (table.pattern("pattern"),)
    last = table.value("last", (bool,), "true or false") if table.has("last") else False
    return Signature(
        lines,
        confidence,
        table.text("note") if table.has("note") else "",
        _patterns(table, "without"),
        _patterns(table, "never-then"),
        last,
        _conditions(table),
    )


def _patterns(table: _Table, name: str, least: int = 0) -> tuple[Pattern, ...]:
    if not table.has(name):
        return ()
    return tuple(table.compiled(name, one) for one in table.texts(name, "a list of patterns", least=least))


def _conditions(table: _Table) -> Conditions:
    exits = table.texts("exit", "a list of exit codes, signals such as SIGTERM, and none") if table.has("exit") else ()
    for one in exits:
        if not re.fullmatch(rf"\d+|SIG[A-Z]+|{STILL_RUNNING}", one):
            raise table.error("exit", f"an exit code, a signal such as SIGTERM, or {STILL_RUNNING}", one)
    versions = []
    for text in table.texts("versions", 'a list such as ["python>=3.12"]') if table.has("versions") else ():
        match = re.match(r"[\w.-]+", text)
        try:
            versions.append((match[0].lower(), version_range(text[match.end() :]))) if match else None
        except ValueError as error:
            raise table.error("versions", f"a name and {error}", text) from None
        if match is None:
            raise table.error("versions", "a name and comparisons such as python>=3.12", text)
    return Conditions(tuple(exits), tuple(versions))


@cache
def causes() -> tuple[Cause, ...]:
    """What is not the servers' own, by id. Raises CardError for a file that is wrong."""
    file = CATALOGUE.parent / "causes.toml"
    data = _read(file)
    found = []
    for number, entry in enumerate(data["cause"], 1):
        table = _Table(file, f"cause[{number}].", entry)
        found.append(
            Cause(
                id=table.text("id"),
                title=table.text("title"),
                signatures=table.tables("signature", "a list of tables [[cause.signature]]", _signature),
                fixes=table.tables("fix", "a list of tables [[cause.fix]]", _fix),
                sources=table.texts("sources", "a list of links") if table.has("sources") else (),
            )
        )
        table.done()
    return tuple(found)


def _setup(table: _Table) -> Setup:
    roles = [one.value for one in Role if one is not Role.LASTCALL]
    role = Role(table.choice("role", roles))
    title = table.text("title")
    requirements = table.texts("requirements", "a list of requirements such as uvicorn==0.21.1", least=1)
    name = table.text("app", "the path of an application file, from the directory of the card")
    app = table.file.parent / name
    if not app.is_file() or app.suffix != ".py":
        raise table.error("app", "the path of a .py file, from the directory of the card", name)
    python = table.text("python") if table.has("python") else None
    if python is not None and not _PYTHON.fullmatch(python):
        raise table.error("python", "a version such as 3.12 or 3.12.1", python)
    options = table.texts("options", "a list of words")
    _check_placeholders(table, "options", options)
    return Setup(role=role, title=title, requirements=requirements, options=options, app=app, python=python)


def _reproduction(table: _Table) -> Reproduction:
    command = table.texts("command", 'a list of words such as ["uvicorn", "app:app", "--port", "{port}"]', least=1)
    _check_placeholders(table, "command", command)
    if not any("{port}" in word for word in command):
        raise table.error("command", "a word with {port}, the port to listen on", list(command))
    steps = table.tables("step", "a list of tables [[reproduction.step]]", _step)
    if [step.do for step in steps].count("start") != 1 or steps[0].do != "start":
        raise table.error("step", 'do = "start" as the first step, and no other')
    reproduction = Reproduction(
        command=command,
        deadline=table.seconds("deadline", 30.0),
        steps=steps,
        failure=table.tables("failure", "a list of tables [[reproduction.failure]]", _observation),
        healthy=table.tables("healthy", "a list of tables [[reproduction.healthy]]", _observation),
    )
    table.done()
    return reproduction


def _check_placeholders(table: _Table, field: str, words: Sequence[str]) -> None:
    for word in words:
        for found in _BRACES.findall(word):
            if found not in PLACEHOLDERS:
                raise table.error(field, f"{', '.join(PLACEHOLDERS)} as the only placeholder", found)


def _step(table: _Table) -> Step:
    do = table.choice("do", list(STEPS))
    return Step(do, _row(table, STEPS[do]))


def _observation(table: _Table) -> Observation:
    see = table.choice("see", list(OBSERVATIONS))
    return Observation(see, _row(table, OBSERVATIONS[see]))


def _row(table: _Table, row: Row) -> dict[str, Any]:
    return {name: _field(table, name, field) for name, field in row.fields.items()}


def _field(table: _Table, name: str, field: Field) -> Any:
    if field.optional and not table.has(name):
        return field.default
    if field.types == (Pattern,):
        # The output of a run is short: a pattern without a literal does no harm.
        return table.compiled(name, table.value(name, (str,), field.expected), needs_literal=False)
    if field.types == (tuple,):
        texts = table.texts(name, field.expected, least=2)
        return tuple(table.compiled(name, text, needs_literal=False) for text in texts)
    value = table.value(name, field.types, field.expected)
    if field.choices and value not in field.choices:
        raise table.error(name, field.expected, value)
    if float in field.types and not 0 < value < 3600:
        raise table.error(name, f"{field.expected}, above 0 and below 3600", value)
    if name == "signal" and value not in signal.Signals.__members__:
        raise table.error(name, field.expected, value)
    return value


def _lastcall(table: _Table) -> Lastcall:
    if not table.has("lastcall"):
        return Lastcall()
    part = table.table("lastcall")
    unsupported = part.text("unsupported") if part.has("unsupported") else ""
    options = part.texts("options", "a list of words")
    part.done()
    return Lastcall(options, unsupported)


_OPENS: Final = frozenset({"open", "request", "websocket", "send"})


def _check_clients(table: _Table, reproduction: Reproduction) -> None:
    """A client is named before it is used: a slip of the pen would be an observation that never holds."""
    known: set[str] = set()
    for number, step in enumerate(reproduction.steps, 1):
        client = step.fields.get("client")
        if step.do in _OPENS:
            known.add(step.fields["client"])
        elif client is not None and client not in known:
            raise table.error(f"reproduction.step[{number}].client", "a client that an earlier step has opened", client)
    for field, observations in (("failure", reproduction.failure), ("healthy", reproduction.healthy)):
        for number, one in enumerate(observations, 1):
            client = one.fields.get("client")
            if client is not None and client not in known:
                raise table.error(f"reproduction.{field}[{number}].client", "a client that a step opens", client)

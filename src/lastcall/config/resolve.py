"""From what the user gave, under whatever name, to one checked value per option.

Precedence: flag, then environment, then default. The environment is the command's: a program that calls ``run()`` says
what it wants by keywords, and only ``WEB_CONCURRENCY`` is looked at there, as in uvicorn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lastcall.base.errors import ConfigError
from lastcall.base.record import Record
from lastcall.config.kinds import UnusableValueError
from lastcall.config.options import OPTIONS, Option

_ADDRESS = ("host", "port", "uds", "fd")


class Given(Record):
    """A value that the user gave, not read yet. ``spelled`` is its name as written: a flag, variable or keyword."""

    raw: object
    spelled: str


def from_keywords(keywords: Mapping[str, object], errors: list[ConfigError]) -> dict[str, Given]:
    """Return the keywords as given values. A name that is no option is added to ``errors``.

    ``None`` for an option whose default is None is taken for "not given", since uvicorn's programs pass such
    defaults explicitly.
    """
    given: dict[str, Given] = {}
    for name, value in keywords.items():
        option = OPTIONS.get(name)
        if option is None:
            errors.append(ConfigError(name, value, f"the name of an option{did_you_mean(name, OPTIONS)}"))
        elif not (value is None and option.default is None):
            given[name] = Given(value, name)
    return given


def from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return the options that ``LASTCALL_*`` variables give. An empty variable counts as not set."""
    given: dict[str, Given] = {}
    for option in OPTIONS.values():
        if option.env is not None and (text := environ.get(option.env)):
            given[option.name] = Given(option.kind.split(text) if option.kind.repeatable else text, option.env)
    return given


def resolve(given: Mapping[str, Given], errors: Sequence[ConfigError] = (), *, command: bool) -> dict[str, Any]:
    """Return the value of every option, read and checked. ``command``: the command line's defaults hold.

    Raises :class:`ConfigError`, which names the option as the user wrote it: all that are wrong at once, those of
    ``errors`` first.
    """
    values: dict[str, Any] = {}
    wrong = list(errors)
    for option in OPTIONS.values():
        if option.name in given:
            try:
                values[option.name] = _read(option, given[option.name])
            except ConfigError as error:
                wrong.append(error)
        elif command and option.command_default is not ...:
            values[option.name] = option.command_default
        else:
            values[option.name] = option.default
    if not wrong:  # these look at several options, which have to be right by themselves
        wrong += [*_wrong_addresses(given, values), *_wrong_globs(given, values)]
    if wrong:
        raise ConfigError.together(wrong)
    return values


def ignored_addresses(given: Mapping[str, Given]) -> list[str]:
    """Return a warning for each given address that another one makes void: ``fd`` wins over ``uds``, over the rest."""
    winner = next((name for name in ("fd", "uds") if name in given), None)
    if winner is None:
        return []
    losers = [name for name in _ADDRESS[: _ADDRESS.index(winner)] if name in given]
    return [f"{given[name].spelled} has no effect beside {given[winner].spelled}" for name in losers]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'port'?)"`` if one of ``known`` is close to ``name``, else nothing."""
    import difflib  # noqa: PLC0415 - a start without mistakes need not wait for it

    close = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _read(option: Option, given: Given) -> Any:
    try:
        value = option.kind.read(given.raw)
    except UnusableValueError as error:
        culprit = given.raw if error.value is ... else error.value
        raise ConfigError(given.spelled, _shown(option, culprit), error.expected) from None
    # uvicorn's own default for the keyword: refusing it would refuse every program that spells it out.
    tolerated = option.name == "proxy_headers" and given.spelled == option.name
    if option.only is not None and value not in option.only.values and not tolerated:
        raise ConfigError(given.spelled, _shown(option, given.raw), option.only.expected)
    return value


def _shown(option: Option, value: object) -> object:
    return "***" if option.secret else value


def _wrong_addresses(given: Mapping[str, Given], values: Mapping[str, Any]) -> Iterator[ConfigError]:
    if values["bind"] is None:
        return
    for name in _ADDRESS:
        if name in given:
            both = f"no {given[name].spelled} beside {given['bind'].spelled}, which says everything about listeners"
            yield ConfigError(given[name].spelled, given[name].raw, both)


def _wrong_globs(given: Mapping[str, Given], values: Mapping[str, Any]) -> Iterator[ConfigError]:
    for glob in values["drain_finish"]:
        if glob in values["drain_close"]:
            once = f"no glob that {given['drain_close'].spelled} has too"
            yield ConfigError(given["drain_finish"].spelled, glob, once)

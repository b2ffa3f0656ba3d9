"""``lastcall migrate -- uvicorn app:app …``: the same for lastcall, what is left out, and what changes.

It reads the command line of uvicorn, of gunicorn with a worker class for ASGI, of hypercorn, of granian, and of
``fastapi run`` and ``fastapi dev``; it runs nothing, and imports no application.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Final

import click

from lastcall.cli.migrate_fastapi import from_fastapi
from lastcall.cli.migrate_granian import from_granian
from lastcall.cli.migrate_gunicorn import from_gunicorn
from lastcall.cli.migrate_hypercorn import from_hypercorn
from lastcall.cli.migrate_uvicorn import from_uvicorn
from lastcall.cli.translation import Translation
from lastcall.config.options import OPTIONS

READERS: Final[dict[str, Callable[[Sequence[str]], Translation]]] = {
    "uvicorn": from_uvicorn,
    "gunicorn": from_gunicorn,
    "fastapi": from_fastapi,
    "hypercorn": from_hypercorn,
    "granian": from_granian,
}
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)

_HEADS: Final = ("", "A request head has 10 s to come, a body 60 s between two pieces ({}).")
_UVICORN: Final = (
    (
        "timeout_graceful_shutdown",
        "A stop is bounded: requests have 20 s, after Ctrl-C 3 s, then they are cut, and lifespan.shutdown runs in any "
        "case (uvicorn waits for ever). --timeout-graceful-shutdown and --timeout-interrupt change that.",
    ),
    ("timeout_keep_alive", "A kept-alive connection may be idle for 75 s (uvicorn: 5 s)."),
    ("loop", "The event loop is asyncio (uvicorn: uvloop where it is installed). --loop uvloop is as before."),
    (
        "proxy_headers",
        "X-Forwarded-For and X-Forwarded-Proto are not read (uvicorn reads them from 127.0.0.1): behind a proxy, the "
        "client is the proxy and URLs begin with http://.",
    ),
    (_HEADS[0], _HEADS[1].format("uvicorn: no limit")),
)

DIFFERENCES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    **dict.fromkeys(("uvicorn", "gunicorn", "fastapi"), _UVICORN),
    "hypercorn": (
        (
            "timeout_graceful_shutdown",
            "Requests have 20 s at a stop, after Ctrl-C 3 s (hypercorn: 3 s), then they are cut. --graceful-timeout of "
            "hypercorn is --timeout-graceful-shutdown.",
        ),
        ("timeout_keep_alive", "A kept-alive connection may be idle for 75 s (hypercorn: 5 s)."),
        ("backlog", "The kernel keeps 2048 connections that wait (hypercorn: 100)."),
        ("http2", "HTTP/2 is not spoken yet (hypercorn speaks it, also without TLS)."),
        (_HEADS[0], _HEADS[1].format("hypercorn: no limit")),
    ),
    "granian": (
        (
            "timeout_graceful_shutdown",
            "A stop is bounded: requests have 20 s, after Ctrl-C 3 s, then they are cut, and lifespan.shutdown runs in "
            "any case (granian waits for ever, or kills after --workers-kill-timeout).",
        ),
        ("timeout_header", "A request head has 10 s to come (granian: 30 s)."),
        (
            "loop",
            "The event loop is asyncio (granian: uvloop or rloop where one is installed). --loop uvloop is uvloop.",
        ),
        ("http2", "HTTP/2 is not spoken yet (granian speaks it, also without TLS)."),
    ),
}
"""What is different where nothing is said: by program, the option that would say it, and a sentence."""


def translate(words: Sequence[str]) -> tuple[str, Translation]:
    """The command for lastcall, and what there is to say about it. Raises UsageError for what is not understood."""
    if len(words) == 1 and " " in words[0]:
        words = shlex.split(words[0])
    at = next((n for n, word in enumerate(words) if PurePath(word).name in READERS), None)
    if at is None:
        raise click.UsageError(
            f"none of {', '.join(READERS)} is in {shlex.join(words)!r}: lastcall migrate understands uvicorn, gunicorn "
            "with UvicornWorker, hypercorn, granian, and fastapi run and dev"
        )
    program = PurePath(words[at]).name
    prefix = list(words[:at])
    variables = []
    while prefix and _ASSIGNMENT.fullmatch(prefix[0]):
        variables.append(prefix.pop(0))
    assigning = next((n for n, word in enumerate(prefix) if PurePath(word).name == "env"), len(prefix))
    arguments = list(words[at + 1 :])
    if program == "gunicorn":
        for place in (variables, prefix):
            for variable in [each for each in place if each.startswith("GUNICORN_CMD_ARGS=")]:
                place.remove(variable)
                arguments = shlex.split(variable.partition("=")[2]) + arguments
    made = READERS[program](arguments)
    made.variables[:0] = variables
    made.variables = [kept for each in made.variables for kept in _taken(made, each, program)]
    behind_env = [
        kept
        for word in prefix[assigning:]
        for kept in (_taken(made, word, program) if _ASSIGNMENT.fullmatch(word) else [word])
    ]
    made.check()
    made.program = program
    if "log_config" in made.settled:
        made.notes.append("A log configuration has to name our loggers: lastcall, lastcall.error, lastcall.access.")
    return made.command([*prefix[:assigning], *behind_env]), made


def _taken(made: Translation, variable: str, program: str) -> list[str]:
    """What becomes of an assignment of a variable: the same, ours, or nothing. Raises UsageError as for a flag."""
    name, _, value = variable.partition("=")
    option = name.removeprefix("UVICORN_").lower()
    if name == "WEB_CONCURRENCY":
        if program in ("uvicorn", "gunicorn", "fastapi"):
            return [variable]  # it counts here, too
        made.leave(variable, f"{program} does not read it, and lastcall would")
        return []
    if name.startswith("GRANIAN_") and program == "granian":
        made.leave(variable if "PASSWORD" not in name else f"{name}=…", "write it as granian's option of that name")
        return []
    if name == "FORWARDED_ALLOW_IPS":
        option = "forwarded_allow_ips"
    elif not name.startswith("UVICORN_") or option not in OPTIONS:
        return [variable]
    elif program != "uvicorn":
        made.leave(variable if not OPTIONS[option].secret else f"{name}=…", f"{program} does not read it either")
        return []
    kept = made.keep_variable(option, name, value)
    return [] if kept is None else [kept]


def say(line: str, made: Translation) -> None:
    """Write the command, alone in the first line, and then in words what becomes of the rest."""
    click.echo(line)
    if made.left_out:
        click.echo("\nLeft out:")
        for written, why in made.left_out:
            click.echo(f"  {written}: {why}")
    click.echo("\nWhat changes:")
    for text in (*made.notes, *(text for name, text in DIFFERENCES[made.program] if name not in made.settled)):
        click.echo(f"  - {text}")
    click.echo("\nMore: docs/how-to/migrate-from-uvicorn.md")


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["--help"]}
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def migrate(command: tuple[str, ...]) -> None:
    """Print what COMMAND, which starts another server, is for lastcall, and what changes.

    COMMAND is a whole command line of uvicorn, gunicorn (with a worker class for ASGI), hypercorn, granian, or of
    fastapi run or dev:

        lastcall migrate -- uvicorn app:app --workers 4
    """
    say(*translate(command))

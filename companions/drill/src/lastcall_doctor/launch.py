"""Which words of a command line are the server's, and what stands before them. Pure."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from lastcall_doctor.facts import Launch, Shell

SERVERS: Final = frozenset({"daphne", "granian", "gunicorn", "h2corn", "hypercorn", "lastcall", "uvicorn"})
"""Commands that start a server, and modules that do with ``-m``."""
SHELLS: Final = frozenset({"ash", "bash", "dash", "ksh", "sh", "zsh"})
_OPERATOR: Final = re.compile(r"[;&|()]+")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE: Final = re.compile(r"\$\((\w+)\)|\$\{(\w+)\}|\$(\w+)")
_UNRESOLVED: Final = re.compile(r"\$[\w{(]|%[a-zA-Z]")  # the second: a specifier of systemd
_NOT_SERVING: Final = frozenset({"doctor", "drill", "once", "--help", "--version", "-h"})
_DEBUG_VARIABLES: Final = ("PYTHONDEVMODE", "PYTHONASYNCIODEBUG")


def launch_of(words: Sequence[str], env: Mapping[str, str]) -> Launch | None:
    """How ``words`` start a server in an environment of ``env``, or None if they do not."""
    shell, inner = _shell(words)
    if shell is None:
        return _launch(words, env, None)
    for command in inner:
        found = _launch(command, env, shell)
        if found is not None:
            return found
    return None


def simple_commands(words: Sequence[str]) -> list[list[str]]:
    """The commands that ``words`` run: themselves, or those of the script that they give a shell."""
    shell, inner = _shell(words)
    return [list(words)] if shell is None else inner


def debug_asked_for(words: Iterable[str], env: Mapping[str, str]) -> str:
    """What in a command and its environment asks Python for its debug mode; the empty string if nothing does."""
    before = list(words)
    if "-Xdev" in before or ("-X", "dev") in itertools.pairwise(before):
        return "-X dev"
    for name in _DEBUG_VARIABLES:
        if env.get(name):
            return f"{name}={env[name]}"
    return "PYTHONMALLOC=debug" if env.get("PYTHONMALLOC", "").endswith("debug") else ""


def expand(word: str, env: Mapping[str, str]) -> str:
    """``word`` with the variables of ``env`` put in; others stay as they are."""
    return _VARIABLE.sub(lambda match: env.get(match[1] or match[2] or match[3], match[0]), word)


def _launch(words: Sequence[str], env: Mapping[str, str], shell: Shell | None) -> Launch | None:
    position = _after_name(words)
    if position is None or (words[position : position + 1] and words[position] in _NOT_SERVING):
        return None
    before, after = words[:position], [expand(word, env) for word in words[position:]]
    given = dict(env)
    for word in before:
        if match := _ASSIGNMENT.fullmatch(word):
            given[match[1]] = match[2]
    if shell is not None:
        shell = Shell(name=shell.name, script=shell.script, execs="exec" in before)
    return Launch(
        words=tuple(after),
        server=_name(words[position - 1]),
        env=given,
        shell=shell,
        unresolved=tuple(word for word in after if _UNRESOLVED.search(word)),
        debug=debug_asked_for(before, given),
    )


def _name(word: str) -> str:
    return word.rpartition("/")[2]


def _after_name(words: Sequence[str]) -> int | None:
    """The number of the word after the name of a server, as in ``lastcall`` or ``-m lastcall``."""
    for number, word in enumerate(words):
        if _name(word) in SERVERS and not (number and words[number - 1] in ("-n", "--name")):
            return number + 1
    return None


def _shell(words: Sequence[str]) -> tuple[Shell | None, list[list[str]]]:
    """The shell that is given a script, and the simple commands of that script."""
    for number, word in enumerate(words):
        name = word.rpartition("/")[2]
        if name not in SHELLS:
            continue
        for position in range(number + 1, len(words)):
            if re.fullmatch(r"-[a-zA-Z]*c[a-zA-Z]*", words[position]) and position + 1 < len(words):
                script = words[position + 1]
                return Shell(name=name, script=script, execs=False), _simple_commands(script)
    return None, []


def _simple_commands(script: str) -> list[list[str]]:
    """The words of each simple command; nothing where the quotes do not match."""
    lexer = shlex.shlex(script.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    try:
        for token in lexer:
            if _OPERATOR.fullmatch(token):
                commands.append([])
            else:
                commands[-1].append(token)
    except ValueError:
        return []
    return [command for command in commands if command]

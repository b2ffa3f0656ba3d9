"""What to change so that a route ends, and the command that shows whether it helps: it runs as it is printed."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from math import ceil
from typing import Final

from lastcall_drill.appmode.routes import WITHOUT_BODY, Kind, Route, Subject
from lastcall_drill.record import Record
from lastcall_drill.servers import OURS, Target

GUIDE: Final = "docs/how-to/stop-streams.md"

SECRETS_FILE: Final = "FILE"

FAREWELL: Final = 1.0
"""Seconds after which lastcall ends what ``--drain-close`` names; it has to come well before the end of the grace."""


class Needs(Record):
    """What was seen of a route that decides on the advice.

    ``begun``: its response had a head before the server cut it. ``cut``: the server ended it, and not the application.
    ``told``: the server has given notice. ``deaf``: it went on after http.disconnect.
    """

    route: Route
    begun: bool
    cut: bool
    told: bool
    deaf: bool

    @property
    def closable(self) -> bool:
        """Whether ``--drain-close`` ends it: responses that have begun, and GET and HEAD that wait for theirs."""
        return self.route.kind is Kind.HTTP and self.cut and (self.begun or self.route.method in WITHOUT_BODY)


class Again(Record):
    """How to run the same drill again. ``program`` is the command as it was called, ``given`` the options to repeat.

    ``secrets`` are the names of headers whose lines are not repeated: ``given`` takes them from :data:`SECRETS_FILE`.
    """

    program: str
    subject: Subject
    given: Sequence[str] = ()  # every option but --server, --grace and --scale
    secrets: Sequence[str] = ()

    def command(self, server: str) -> str:
        """The command for a shell, with a server, and a grace in which ``--drain-close`` can act."""
        least = 2 * FAREWELL / self.subject.scale
        words = [*self.given, "--grace", str(max(self.subject.grace, ceil(least)))]
        if self.subject.scale != 1.0:
            words += ["--scale", f"{self.subject.scale:g}"]
        words += ["--server", server]
        return f"{_runnable(self.program, 'lastcall_drill')} {shlex.join(words)}"


def remedy(needs: Needs, target: Target, again: Again, failed: Sequence[Needs]) -> str:
    """Advice, a line each that begins with ``- ``; commands stand on lines of their own, which begin with ``$ ``.

    ``failed`` are all routes that need some, this one included: one command closes them all, and is printed once.
    """
    ours = target.asked.name == OURS
    lines = [_of_the_code(needs)]
    if not ours and not needs.told:
        lines.append("(This server has told the application nothing; under lastcall the notice is set at the signal.)")
    closable = [one for one in failed if one.closable]
    if needs.closable:
        first = closable[0] == needs
        glob = shlex.quote(escaped(needs.route.decoded))
        do = f"- Code that cannot be changed: lastcall --drain-close {glob} ends it 1 s after the signal"
        lines.append(f"{do}. Try:" if first else f"{do}, as the command above has it.")
        if first:
            lines.append(f"$ {again.command(closing(target, [one.route for one in closable]))}")
            if again.secrets:
                names = " and ".join(again.secrets)
                lines.append(f"(Write it first: {SECRETS_FILE} holds the lines of {names}, which no report repeats.)")
    if needs.cut:
        option = "--timeout-graceful-shutdown" if ours else "the server's grace"
        more = f"a longer grace here (--grace), and {option}"
        lines.append(f"- If it ends by itself and should finish, give it time: {more}.")
    if needs.deaf:
        lines.append(
            "- It also went on after http.disconnect: end the generator when the client has left "
            "(await request.is_disconnected(), or let send() raise)."
        )
    return "\n".join((*lines, f"See {GUIDE}."))


def _of_the_code(needs: Needs) -> str:
    label = needs.route.label
    notice = "when the server drains: with lastcall.drain_notice(), wait for the notice beside"
    if needs.route.kind is Kind.WEBSOCKET:
        return f"- Let {label} close {notice} what it waits for, and close with 1012: clients come back."
    if not needs.begun:
        return f"- Let {label} answer {notice} what it waits for, and answer with what there is."
    return f"- If {label} never ends by itself, let it end {notice} what the stream waits for, say goodbye and return."


def closing(target: Target, routes: Sequence[Route]) -> str:
    """The command of a lastcall that closes the routes: the user's own, if it was one, with the options added."""
    if target.asked.name == OURS and target.asked.command:
        words = target.asked.command
    else:
        words = f"{_runnable(OURS, OURS)} {{app}} --port {{port}} --timeout-graceful-shutdown {{grace}}"
    globs = dict.fromkeys(shlex.quote(escaped(one.decoded)) for one in routes)
    return " ".join((words, *(f"--drain-close {one}" for one in globs)))


def escaped(path: str) -> str:
    """A path as a glob that fits nothing else: as ``glob.escape``, which leaves a drive alone."""
    return re.sub(r"([*?[])", r"[\1]", path)


def _runnable(program: str, module: str) -> str:
    """The program, if the shell finds it, else the module by the interpreter that runs this."""
    if shutil.which(program.split(" ", 1)[0]):
        return program
    return f"{shlex.quote(sys.executable)} -m {module}"

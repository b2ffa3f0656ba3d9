"""What to change so that a route ends, and the command that shows whether it helps: it runs as it is printed."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from math import ceil
from typing import Final

from lastcall_drill.appmode.routes import Kind, Route, Subject
from lastcall_drill.record import Record
from lastcall_drill.servers import OURS, Target

GUIDE: Final = "docs/how-to/stop-streams.md"

FAREWELL: Final = 1.0
"""Seconds after which lastcall ends what ``--drain-close`` names; it has to come well before the end of the grace."""


class Needs(Record):
    """What was seen of a route that decides on the advice."""

    route: Route
    begun: bool  # its response had a head before the server cut it
    told: bool  # the server has given notice
    deaf: bool  # it went on after http.disconnect


class Again(Record):
    """How to run the same drill again. ``program`` is the command as it was called, ``given`` the options to repeat."""

    program: str
    subject: Subject
    given: Sequence[str] = ()  # every option but --server, --grace and --scale

    def command(self, server: str) -> str:
        """The command for a shell, with a server, and a grace in which ``--drain-close`` can act."""
        least = 2 * FAREWELL / self.subject.scale
        words = [*self.given, "--grace", str(max(self.subject.grace, ceil(least)))]
        if self.subject.scale != 1.0:
            words += ["--scale", f"{self.subject.scale:g}"]
        words += ["--server", server]
        return f"{_runnable(self.program, 'lastcall_drill')} {shlex.join(words)}"


def remedy(needs: Needs, target: Target, again: Again) -> str:
    """Advice, a line each that begins with ``- ``; commands stand on lines of their own, which begin with ``$ ``."""
    route = needs.route
    ours = target.asked.name == OURS
    lines = [_of_the_code(needs)]
    if not ours and not needs.told:
        lines.append("(This server has told the application nothing; under lastcall the notice is set at the signal.)")
    if route.kind is Kind.HTTP and (needs.begun or route.method in ("GET", "HEAD")):
        glob = shlex.quote(escaped(route.decoded))
        lines.append(f"- Code that cannot be changed: lastcall --drain-close {glob} ends it 1 s after the signal. Try:")
        lines.append(f"$ {again.command(closing(target, route))}")
    option = "--timeout-graceful-shutdown" if ours else "the server's grace"
    lines.append(
        f"- If it ends by itself and should finish, give it time: a longer grace here (--grace), and {option}."
    )
    if needs.deaf:
        lines.append(
            "- It also went on after http.disconnect: end the generator when the client has left "
            "(await request.is_disconnected(), or let send() raise)."
        )
    return "\n".join((*lines, f"See {GUIDE}."))


def _of_the_code(needs: Needs) -> str:
    label, notice = (
        needs.route.label,
        "when the server drains: with lastcall.drain_notice(), wait for the notice beside",
    )
    if needs.route.kind is Kind.WEBSOCKET:
        return f"- Let {label} close {notice} what it waits for, and close with 1012: clients come back."
    if not needs.begun:
        return f"- Let {label} answer {notice} what it waits for, and answer with what there is."
    return f"- If {label} never ends by itself, let it end {notice} what the stream waits for, say goodbye and return."


def closing(target: Target, route: Route) -> str:
    """The command of a lastcall that closes the route: the user's own, if it was one, with the option added."""
    if target.asked.name == OURS and target.asked.command:
        words = target.asked.command
    else:
        words = f"{_runnable(OURS, OURS)} {{app}} --port {{port}} --timeout-graceful-shutdown {{grace}}"
    return f"{words} --drain-close {shlex.quote(escaped(route.decoded))}"


def escaped(path: str) -> str:
    """A path as a glob that fits nothing else: as ``glob.escape``, which leaves a drive alone."""
    return re.sub(r"([*?[])", r"[\1]", path)


def _runnable(program: str, module: str) -> str:
    """The program, if the shell finds it, else the module by the interpreter that runs this."""
    if shutil.which(program.split(" ", 1)[0]):
        return program
    return f"{shlex.quote(sys.executable)} -m {module}"

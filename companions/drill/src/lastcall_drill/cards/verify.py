"""Proof of a card: its reproduction, run on the broken release, then on the fixed one, then on lastcall."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Final

from lastcall_drill.cards.card_run import CardRun, Observed, RunSettings
from lastcall_drill.cards.format import Card, Observation, Role, Setup, described
from lastcall_drill.environments import EnvironmentError_, environment_for
from lastcall_drill.errors import DrillError
from lastcall_drill.process import exit_words, free_port
from lastcall_drill.record import Record, replace

Say = Callable[[str], None]

EXCERPT: Final = 25
"""Lines of a server's output that are kept as evidence, from its end."""

_LONGEST_LINE: Final = 300
_LASTCALL: Final = "lastcall"
_LASTCALL_COMMAND: Final = (_LASTCALL, "app:app", "--port", "{port}")
# A server is to see nothing of the drill's own surroundings, other than what every program needs.
_INHERITED: Final = ("LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")


class Outcome(Enum):
    """What a run has shown."""

    SHOWN = "failure shown"
    HEALTHY = "failure not shown"
    NEITHER = "neither"  # not all of either list holds
    UNSUPPORTED = "unsupported"
    ERROR = "could not be run"


class Check(Record):
    """An observation and what was seen. ``list`` is ``failure`` or ``healthy``."""

    list: str
    see: str
    holds: bool
    what: str


class Evidence(Record):
    """One run. ``command`` is as in the card, without paths; ``seconds`` from the last signal to the exit.

    ``exit`` is in words, empty while the server still ran. ``moments`` are lines of the timeline, the output's excerpt
    its last lines. ``sentence`` says why, where there was no run; ``turn`` counts repetitions, from 1.
    """

    role: Role
    title: str
    outcome: Outcome
    python: str = ""
    versions: Mapping[str, str] = {}
    command: str = ""
    seconds: float | None = None
    exit: str = ""
    checks: Sequence[Check] = ()
    moments: Sequence[str] = ()
    output: Sequence[str] = ()
    sentence: str = ""
    turn: int = 1

    @property
    def proves(self) -> bool:
        """Whether it shows what a run of its role has to."""
        wanted = Outcome.SHOWN if self.role in (Role.BROKEN, Role.STILL_BROKEN) else Outcome.HEALTHY
        return self.outcome is wanted


class Proof(Record):
    """What came of one card. ``date`` is ISO 8601, UTC; ``machine`` a short text."""

    card: Card
    date: str
    machine: str
    runs: Sequence[Evidence]

    @property
    def reproduced(self) -> bool:
        """Whether every run but lastcall's shows what the card claims."""
        claims = [run for run in self.runs if run.role is not Role.LASTCALL]
        return bool(claims) and all(run.proves for run in claims)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.reproduced:
            return f"reproduced: yes, {self.date[:10]}"
        wrong = [run for run in self.runs if run.role is not Role.LASTCALL and not run.proves]
        return "reproduced: no; " + "; ".join(f"{run.title}: {run.sentence or run.outcome.value}" for run in wrong)


def verify(card: Card, *, times: int = 1, cache: Path | None = None, say: Say | None = None) -> Proof:
    """Run the card's reproduction on each of its setups, and on lastcall, ``times`` times each.

    A claim that does not hold is no error: it stands in the proof. ``say`` is told what is done, line by line.
    """
    tell = say or (lambda _line: None)
    runs = [
        replace(_run_setup(card, setup, f"{setup.title}{_number(turn, times)}", cache, tell), turn=turn + 1)
        for setup in card.setups
        for turn in range(times)
    ]
    runs += [
        replace(_run_lastcall(card, f"lastcall{_number(turn, times)}", tell), turn=turn + 1) for turn in range(times)
    ]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return Proof(card, datetime.now(UTC).isoformat(timespec="seconds"), machine, runs)


def _number(turn: int, times: int) -> str:
    return f" (run {turn + 1} of {times})" if times > 1 else ""


def _run_setup(card: Card, setup: Setup, title: str, cache: Path | None, tell: Say) -> Evidence:
    try:
        environment = environment_for(setup.requirements, python=setup.python, cache=cache, say=tell)
    except EnvironmentError_ as error:
        return Evidence(setup.role, title, Outcome.ERROR, sentence=str(error))
    words = (*card.reproduction.command, *setup.options)
    base = Evidence(
        setup.role,
        title,
        Outcome.ERROR,
        python=environment.python_version,
        versions=environment.versions,
        command=" ".join(words),
    )
    tell(f"running {title}")
    program = environment.bin / words[0]
    return _perform(card, setup.app, base, [str(program), *words[1:]], environment.bin)


def _run_lastcall(card: Card, title: str, tell: Say) -> Evidence:
    try:
        version = importlib.metadata.version(_LASTCALL)
    except importlib.metadata.PackageNotFoundError:
        return Evidence(
            Role.LASTCALL, title, Outcome.UNSUPPORTED, sentence="unsupported: lastcall is not installed here"
        )
    if card.lastcall.unsupported:
        return Evidence(
            Role.LASTCALL,
            title,
            Outcome.UNSUPPORTED,
            versions={_LASTCALL: version},
            sentence=f"unsupported: {card.lastcall.unsupported}",
        )
    words = (*_LASTCALL_COMMAND, *card.lastcall.options)
    base = Evidence(
        Role.LASTCALL,
        title,
        Outcome.ERROR,
        python=platform.python_version(),
        versions={_LASTCALL: version},
        command=" ".join(words),
    )
    tell(f"running {title}")
    app = next(setup.app for setup in card.setups if setup.role is Role.BROKEN)
    argv = [sys.executable, "-m", *words]
    return _perform(card, app, base, argv, Path(sys.executable).parent)


def _perform(card: Card, app: Path, base: Evidence, argv: Sequence[str], programs: Path) -> Evidence:
    """Do the steps in a directory of their own, and see what holds."""
    with tempfile.TemporaryDirectory(prefix="lastcall-card-") as name:
        directory = Path(name).resolve()
        shutil.copyfile(app, directory / "app.py")
        port = free_port()
        settings = RunSettings(
            argv=[word.replace("{port}", str(port)) for word in argv],
            env=_environment(programs, directory),
            cwd=directory,
            port=port,
            deadline=card.reproduction.deadline,
        )
        hidden = {
            str(directory): "DIRECTORY",
            str(programs.parent): "ENVIRONMENT",
            str((programs / "python").resolve().parents[1]): "PYTHON",
            str(Path.home()): "HOME",
        }
        return _play(card, base, settings, hidden)


def _play(card: Card, base: Evidence, settings: RunSettings, hidden: Mapping[str, str]) -> Evidence:
    sentence = ""
    failure: list[tuple[Observation, Observed]] = []
    healthy: list[tuple[Observation, Observed]] = []
    with CardRun(settings) as run:
        try:
            for step in card.reproduction.steps:
                run.do(step)
            failure = [(one, run.observe(one)) for one in card.reproduction.failure]
            healthy = [(one, run.observe(one)) for one in card.reproduction.healthy]
        except DrillError as error:
            sentence = _hide(str(error), hidden)
        running = run.process is None or run.process.exit_code is None
        ended = "" if run.process is None or running else exit_words(run.process.exit_code or 0)
        seconds = run.exit_seconds
        output = "" if run.process is None else run.process.output()
        moments = run.timeline.moments
    checks = [*_checks("failure", failure, hidden), *_checks("healthy", healthy, hidden)]
    return Evidence(
        base.role,
        base.title,
        Outcome.ERROR if sentence else judged(failure, healthy),
        python=base.python,
        versions=base.versions,
        command=base.command,
        seconds=None if seconds is None else round(seconds, 2),
        exit=ended,
        checks=checks,
        moments=[
            _hide(f"{one.at:+8.3f} s  {one.source.value:7} {one.what} {one.who} {one.detail}".rstrip(), hidden)
            for one in moments
            if one.what not in ("start", "bytes")
        ],
        output=[_hide(line[:_LONGEST_LINE], hidden) for line in output.splitlines()[-EXCERPT:]],
        sentence=sentence,
    )


def judged(failure: Sequence[tuple[Observation, Observed]], healthy: Sequence[tuple[Observation, Observed]]) -> Outcome:
    """The outcome of a run, from what was seen: all of one list and not all of the other, or neither."""
    shown = all(seen.holds for _, seen in failure)
    sound = all(seen.holds for _, seen in healthy)
    if shown is sound:
        return Outcome.NEITHER
    return Outcome.SHOWN if shown else Outcome.HEALTHY


def _checks(name: str, seen: Sequence[tuple[Observation, Observed]], hidden: Mapping[str, str]) -> list[Check]:
    return [Check(name, described(one.see, one.fields), found.holds, _hide(found.what, hidden)) for one, found in seen]


def _hide(text: str, hidden: Mapping[str, str]) -> str:
    """A text without the line_numbers of this machine."""
    for path, name in hidden.items():
        text = text.replace(path, name) if path != os.sep else text
    return text


def _environment(programs: Path, home: Path) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join((str(programs), inherited.get("PATH", os.defpath)))
    ours = {"HOME": str(home), "PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**inherited, **ours}

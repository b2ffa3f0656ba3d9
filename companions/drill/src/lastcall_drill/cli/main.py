"""``lastcall-drill``, and ``lastcall drill``: judge how servers stop.

Exit codes: 0 the first server has no "fail" and no "error" · 1 it has · 2 usage · 3 a server cannot be had, or a report
not be written · 130 interrupted, after every process that was started is gone.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from click.core import ParameterSource

from lastcall_drill.cli.end import interruptible
from lastcall_drill.errors import DrillError
from lastcall_drill.verdicts import Run, Verdict, to_json

if TYPE_CHECKING:
    from lastcall_drill.scenario import Scenario

FAILED: Final = 1
NOT_HAD: Final = 3

PROGRAM: Final = "lastcall-drill"
_OF_SCENARIOS: Final = {"globs": "--scenario", "jobs": "--jobs", "listing": "--list"}
_OF_APPS: Final = {
    "app_dir": "--app-dir",
    "grace": "--grace",
    "routes": "--route",
    "websockets": "--websocket",
    "method": "--method",
    "headers": "--header",
    "body": "--body",
}

_LAZY: Final = {
    "cards": ("lastcall_drill.cli.cards:cards_group", "The catalogue of known failures and their fixes."),
    "verify": ("lastcall_drill.cli.cards:verify_command", "Prove a card: reproduce its failure, then its fix."),
    "match": ("lastcall_drill.cli.cards:match_command", "Find known failures in a log."),
}


class _DrillGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return list(_LAZY)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported."""
        if cmd_name not in _LAZY:
            return None
        module, _, attribute = _LAZY[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{_LAZY[cmd_name][0]} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or a hint where the word is the name of a scenario or a server."""
        word = args[0]
        option = _option_for(word) if word not in _LAZY else ""
        if option:
            ctx.fail(f"No such command '{word}'. Did you mean: {ctx.command_path} {option} {word}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, for which nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _LAZY.items()])


def main() -> NoReturn:
    """Entry point of the command ``lastcall-drill``. Always ends in ``SystemExit``."""
    raise SystemExit(drill_group.main(prog_name=PROGRAM))


def _option_for(word: str) -> str:
    """The option that takes this word, empty if none does."""
    from lastcall_drill.scenario import scenarios  # noqa: PLC0415 - not for --help
    from lastcall_drill.servers import programs  # noqa: PLC0415

    if any(fnmatchcase(one.id, word) for one in scenarios()):
        return "--scenario"
    return "--server" if word.partition("==")[0].partition("[")[0] in programs() else ""


class _NotHadError(click.ClickException):
    """A server, or a report, that cannot be had."""

    exit_code = NOT_HAD


@click.group(
    "drill",
    cls=_DrillGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Judge how soundly ASGI servers stop: start each on an application of the drill's own, talk to it, send it "
    "signals, and look at what its clients and its application get to see.",
    epilog="Exit code 0 if the first server has no fail and no error. What the scenarios are: --list.",
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="SERVER",
    help="lastcall (this one), NAME, NAME[EXTRAS] or NAME==VERSION of a known server (installed in an environment of "
    'its own), or a command such as "uvicorn {app} --port {port} --timeout-graceful-shutdown {grace}". May be given '
    "several times.  [lastcall]",
)
@click.option(
    "--scenario",
    "globs",
    multiple=True,
    metavar="GLOB",
    help="Only scenarios whose id matches. May be given several times.  [all]",
)
@click.option("--list", "listing", is_flag=True, help="List the scenarios and exit.")
@click.option(
    "--scale",
    type=click.FloatRange(0.1, 100),
    default=1.0,
    metavar="N",
    help="Make every time, graces and tolerances alike, N times as long: for slow machines.  [1]",
)
@click.option("--jobs", type=click.IntRange(1, 64), default=4, metavar="N", help="Scenarios at a time.  [4]")
@click.option("--json", "json_file", metavar="FILE", help="Write what was found as JSON; - is stdout.")
@click.option("--junit", "junit_file", metavar="FILE", help="Write it as JUnit XML.")
@click.option("--html", "html_file", metavar="FILE", help="Write it as a page with a timeline for each verdict.")
@click.option("--app", "app", metavar="MODULE:ATTRIBUTE", help="Judge an application instead: with --route.")
@click.option(
    "--route",
    "routes",
    multiple=True,
    metavar="PATH",
    help="With --app: a route that is open when the server is stopped; also 'METHOD PATH'. May be given several times.",
)
@click.option(
    "--websocket",
    "websockets",
    multiple=True,
    metavar="PATH",
    help="With --app: a WebSocket that is open then. May be given several times.",
)
@click.option("--method", metavar="METHOD", help="With --app: that of the requests.  [GET, with a body POST]")
@click.option("--body", metavar="TEXT|@FILE", help="With --app: the body of the requests; JSON is sent as such.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="LINE|@FILE",
    help="With --app: a header field of the requests, 'Name: value', or a file of such lines. May be given several "
    "times.",
)
@click.option("--app-dir", default=".", metavar="DIRECTORY", help="With --app: where it is imported from.  [.]")
@click.option(
    "--grace", type=click.IntRange(1, 3600), default=5, metavar="S", help="With --app: seconds of grace.  [5]"
)
@click.pass_context
def drill_group(ctx: click.Context, /, **given: Any) -> None:
    """Run what was asked for, unless a subcommand was."""
    if ctx.invoked_subcommand is not None:
        return
    _check_mode(ctx, given)
    with interruptible(ctx, "the drill"):
        code = _run(given, ctx.command_path)
    ctx.exit(code)


def _check_mode(ctx: click.Context, given: dict[str, Any]) -> None:
    """Refuse what means nothing with, or without, an application."""
    if given["app"] is not None and not (given["routes"] or given["websockets"]):
        what = "the path that is open when the server is stopped"
        raise click.UsageError(f"--app needs --route (or --websocket): {what}", ctx)
    if given["app"] is None:
        pointless, why = _OF_APPS, " needs --app: scenarios say themselves what they need"
    else:
        pointless, why = _OF_SCENARIOS, ": with --app it means nothing: that is one stop, judged once"
    for name, option in pointless.items():
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{option}{why}", ctx)


def _run(given: dict[str, Any], program: str) -> int:
    from lastcall_drill.cli import app as drill_app  # noqa: PLC0415
    from lastcall_drill.cli.live import live  # noqa: PLC0415 - not for --help, as what follows
    from lastcall_drill.runner import drill, prepare_all  # noqa: PLC0415
    from lastcall_drill.servers import parse_server, prepare, prepare_here  # noqa: PLC0415

    chosen = _chosen(given["globs"])
    if given["listing"]:
        _list(chosen)
        return 0
    try:
        asked = [parse_server(text) for text in dict.fromkeys(given["servers"] or ("lastcall",))]
    except DrillError as error:
        raise click.UsageError(str(error)) from None
    _check_files(given)
    if given["app"] is not None:
        drill_app.subject_of(given)  # refuses what cannot be asked, before anything is prepared
    with live() as shown:
        try:
            if given["app"] is not None:
                targets = [prepare_here(one) for one in asked]
            else:
                targets = prepare_all(asked, lambda one: prepare(one, shown.say), given["jobs"])
        except DrillError as error:
            raise _NotHadError(str(error)) from None
        if given["app"] is not None:
            run = drill_app.judge_all(targets, given, program, shown.say)
        else:
            shown.plan([target.label for target in targets], len(chosen))
            run = drill(targets, chosen, scale=given["scale"], jobs=given["jobs"], watcher=shown)
    if given["app"] is not None:
        out = sys.stderr if given["json_file"] == "-" else sys.stdout
        width = shutil.get_terminal_size().columns if out.isatty() else drill_app.WIDTH
        click.echo(drill_app.sentences(run, min(width, drill_app.WIDTH)), file=out)
    else:
        _show(run, to_stderr=given["json_file"] == "-")
    _write(run, given)
    return FAILED if _blemished(run) else 0


def _chosen(globs: Sequence[str]) -> list[Scenario]:
    from lastcall_drill.scenario import scenarios  # noqa: PLC0415 - not for --help

    for glob in globs:
        if not any(fnmatchcase(one.id, glob) for one in scenarios()):
            raise click.UsageError(f"--scenario {glob}: no scenario's id matches it; --list shows them")
    return [one for one in scenarios() if not globs or any(fnmatchcase(one.id, glob) for glob in globs)]


def _list(chosen: Sequence[Scenario]) -> None:
    from lastcall_drill.reports.facts import BASES  # noqa: PLC0415 - not for --help

    group = ""
    for one in chosen:
        if one.info.group != group:
            group = one.info.group
            click.echo(f"\n{group}" if one is not chosen[0] else group)
        needs = f"  [needs {', '.join(sorted(one.needs))}]" if one.needs else ""
        basis = "" if one.info.basis is None else f"  ({BASES[one.info.basis]})"
        click.echo(f"  {one.id:30} {one.info.title}{basis}{needs}")


def _blemished(run: Run) -> bool:
    """The first server has a fail or an error."""
    first = run.servers[0].label
    return any(one.verdict in (Verdict.FAIL, Verdict.ERROR) for one in run.results if one.server == first)


def _show(run: Run, *, to_stderr: bool) -> None:
    from lastcall_drill.reports import console  # noqa: PLC0415 - not for --help
    from lastcall_drill.reports.text import clean  # noqa: PLC0415

    out = sys.stderr if to_stderr else sys.stdout
    width = shutil.get_terminal_size((120, 24)).columns
    if out.isatty():
        from rich.console import Console  # noqa: PLC0415 - not for --help

        Console(stderr=to_stderr).print(console.table(run, width))
    else:
        unicode = (out.encoding or "").lower().replace("-", "") == "utf8"
        click.echo(console.plain_table(run, width, unicode=unicode), file=out)
    first = run.servers[0].label
    errors: dict[str, str] = {}  # what was said, but for its numbers: of which scenario first
    for one in run.results:
        if one.server == first and one.verdict in (Verdict.FAIL, Verdict.ERROR):
            said = errors.setdefault(re.sub(r"\d+", "", one.sentence), one.scenario)
            if one.verdict is Verdict.ERROR and said != one.scenario:
                click.echo(f"\n{one.scenario}: error: as {said}", file=out)
                continue
            tries = f" ({one.tries} tries)" if one.tries > 1 else ""
            click.echo(f"\n{one.scenario}: {one.verdict.value}{tries}: {clean(one.sentence)}", file=out)
            click.echo(console.timeline(one), file=out)
    click.echo(f"\n{console.summary(run)}", file=out)


def _check_files(given: dict[str, Any]) -> None:
    """Where reports cannot be written, nothing needs to be run."""
    for option in ("json", "junit", "html"):
        name = given[f"{option}_file"]
        if name and name != "-" and not Path(name).absolute().parent.is_dir():
            raise click.UsageError(f"--{option} {name}: there is no such directory")


def _write(run: Run, given: dict[str, Any]) -> None:
    from lastcall_drill.reports import html, junit  # noqa: PLC0415 - not for --help

    writers: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(to_json(run), ensure_ascii=False, indent=1) + "\n",
        "junit": lambda: junit.write(run),
        "html": lambda: html.write(run),
    }
    for option, write in writers.items():
        name = given[f"{option}_file"]
        if name == "-":
            click.echo(write(), nl=False)
        elif name:
            try:
                Path(name).write_text(write(), "utf-8")
            except OSError as error:
                raise _NotHadError(f"--{option} {name}: cannot be written: {error.strerror}") from None

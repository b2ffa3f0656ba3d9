"""``lastcall doctor``: what will go wrong where the server is going to run, and the line that mends it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from lastcall.base.errors import ConfigError, LastcallError
from lastcall.base.record import replace
from lastcall.cli.flags import HIDDEN_GROUP, TableFlag, given_flags, table_flags
from lastcall.cli.run import tell
from lastcall.config.kinds import Seconds, UnusableValueError
from lastcall.config.options import OPTIONS
from lastcall.config.resolve import Given
from lastcall.drill.doctor import facts_app, facts_machine
from lastcall.drill.doctor.facts import Facts, Place, Probe, Server, Start
from lastcall.drill.doctor.facts_manifest import read_manifest
from lastcall.drill.doctor.facts_proxy import read_proxy
from lastcall.drill.doctor.facts_server import FILES, server_elsewhere, server_here
from lastcall.drill.doctor.facts_unit import read_unit
from lastcall.drill.doctor.findings import Severity, examine, is_sound
from lastcall.drill.doctor.output import as_json, as_text

FOUND_ERRORS: Final = 1
NO_APP: Final = "module:app"
_COLOURS: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


class DoctorCommand(click.Command):
    """Lists the doctor's own flags, and says in one line that all of the server's are taken too."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the doctor's flags, and a word about the others."""
        own = [param for param in self.get_params(ctx) if not isinstance(param, TableFlag)]
        records = [record for param in own if (record := param.get_help_record(ctx)) is not None]
        with formatter.section("Options"):
            formatter.write_dl(records)
        shown = sum(isinstance(param, TableFlag) and param.row.group != HIDDEN_GROUP for param in self.params)
        with formatter.section("Options of the server"):
            formatter.write_text(
                f"All {shown} that `lastcall --help` lists; they win over those of a unit or manifest."
            )


class _Case:
    """What the command line asked for, and the facts that follow. Raises LastcallError for what cannot be read."""

    def __init__(self, app: str | None, given: Mapping[str, Given], own: Mapping[str, Any]) -> None:
        self.app = app
        self.given = given
        self.probe_path: str | None = own["probe"]
        self.lb_idle = _seconds("--lb-idle", own["lb_idle"])
        self.looked_at = ["options", *map(str, (*own["unit"], *own["manifest"], *own["proxy"]))]
        if self.probe_path is not None and (app is None or not self.probe_path.startswith("/")):
            expected = "a path that begins with /" if app else "an application to start: lastcall doctor module:app"
            raise ConfigError("--probe", self.probe_path, expected)
        self._read(own["unit"], own["manifest"])
        self.proxies = tuple(map(read_proxy, own["proxy"]))

    def _read(self, units: tuple[Path, ...], manifests: tuple[Path, ...]) -> None:
        found = {path: (read_unit(path),) for path in units} | {path: read_manifest(path) for path in manifests}
        ours = {path: [one for one in places if one.launch or path in manifests] for path, places in found.items()}
        self.strangers = tuple(str(path) for path, places in ours.items() if not places)
        self.places = tuple(
            replace(place, server=self._server_of(place)) for places in ours.values() for place in places
        )

    def facts(self) -> Facts:
        """Everything there is to see, the application's behaviour included if one was named."""
        own = server_here(self.app or NO_APP, self.given, os.environ)
        facts = Facts(
            own=own,
            places=self.places,
            strangers=self.strangers,
            machine=facts_machine.look(),
            lb_idle=self.lb_idle,
            proxies=self.proxies,
        )
        if self.app is None:
            return facts
        tried, start, probe = self._try(self.app, own)
        self.looked_at.append(self.app if probe is None else f"{self.app} {probe.path}")
        return replace(facts, own=tried, start=start, probe=probe)

    def _try(self, app: str, own: Server) -> tuple[Server, Start, Probe | None]:
        """Run the application, with the options of the first place if there is one; also the server that was run."""
        place = next((one for one in self.places if one.server and not one.server.refused and one.launch), None)
        given, env, server = dict(self.given), dict[str, str](), own
        if place is not None and place.launch is not None and place.server is not None:
            _, theirs = words_read(place.launch.words)
            given = {name: one for name, one in theirs.items() if name not in FILES} | given
            env = dict(place.launch.env)
            server = replace(place.server, where=own.where)
        unread = {OPTIONS[name].env for name in facts_app.OVERRIDDEN}
        trial = facts_app.Trial(
            app=app,
            words=words_of({name: one for name, one in given.items() if name not in facts_app.OVERRIDDEN}),
            environ=facts_app.kept_environment(os.environ, env, unread),
            probe=self.probe_path,
            disconnect=server.disconnect,
            lifespan_shutdown=server.lifespan_shutdown,
        )
        start, probe = facts_app.run(trial)
        return server, start, probe

    def _server_of(self, place: Place) -> Server:
        launch = place.launch
        if launch is None:  # the image's command: what is known of it is what the doctor was told
            return server_elsewhere(place.where, self.app or NO_APP, self.given, {})
        try:
            app, theirs = words_read(launch.words)
        except click.UsageError as error:
            refused = error.format_message().rstrip(".")
            return Server(where=place.where, refused=refused, unresolved=launch.unresolved)
        app = self.app or app or launch.env.get("LASTCALL_APP") or NO_APP
        environ = {name: value for name, value in launch.env.items() if name.startswith("LASTCALL_")}
        return server_elsewhere(place.where, app, {**theirs, **self.given}, environ, launch.unresolved)


def words_read(words: tuple[str, ...]) -> tuple[str | None, dict[str, Given]]:
    """The application and the options in the words of a command. Raises ``click.UsageError``, as lastcall would."""
    command = click.Command("lastcall", params=[click.Argument(["app"], required=False), *table_flags()])
    context = command.make_context("lastcall", list(words))
    return context.params.pop("app"), given_flags(context, context.params)


def words_of(given: Mapping[str, Given]) -> tuple[str, ...]:
    """The same options as words again."""
    words: list[str] = []
    for one in given.values():
        if isinstance(one.raw, bool):
            words.append(one.spelled)
        else:
            values = one.raw if isinstance(one.raw, list | tuple) else (one.raw,)
            words += [f"{one.spelled}={value}" for value in values]
    return tuple(words)


def _seconds(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = Seconds(positive=True).read(text)
    except UnusableValueError as error:
        raise ConfigError(flag, text, error.expected) from None
    return seconds if isinstance(seconds, float) and seconds < math.inf else None


def _painted(text: str, severity: Severity) -> str:
    return click.style(text, fg=_COLOURS[severity], bold=True)


@click.pass_context
def _doctor(ctx: click.Context, /, app: str | None, **flags: Any) -> None:
    own = {name: flags.pop(name) for name in ("unit", "manifest", "proxy", "lb_idle", "probe", "as_json")}
    try:
        case = _Case(app, given_flags(ctx, flags), own)
        findings = examine(case.facts())
    except LastcallError as error:
        ctx.exit(tell(error))
    if own["as_json"]:
        click.echo(as_json(findings, case.looked_at))
    else:
        click.echo(as_text(findings, case.looked_at, _painted))
    ctx.exit(0 if is_sound(findings) else FOUND_ERRORS)


doctor_command: Final = DoctorCommand(
    "lastcall doctor",
    callback=_doctor,
    params=[
        click.Argument(["app"], envvar="LASTCALL_APP", required=False),
        click.Option(["--unit"], type=_FILE, multiple=True, metavar="FILE", help="A systemd unit; FILE.d is read too."),
        click.Option(
            ["--manifest"],
            type=_FILE,
            multiple=True,
            metavar="FILE",
            help="A Kubernetes manifest or a Compose file (needs lastcall[yaml]).",
        ),
        click.Option(
            ["--proxy"], type=_FILE, multiple=True, metavar="FILE", help="The configuration of nginx or HAProxy."
        ),
        click.Option(
            ["--lb-idle"], metavar="SECONDS", help="How long the load balancer keeps an idle connection to a server."
        ),
        click.Option(
            ["--probe"], metavar="PATH", help="Open this path of the application, leave, and see whether its task ends."
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
        *table_flags(),
    ],
    help=(
        "Look for what will go wrong where the server is going to run: each finding with the line that mends it. "
        "APP, module:attribute, is started and stopped if it is given."
    ),
    epilog="Exit code: 0 if no finding is an error, 1 if one is, 2 if an option or a file cannot be read.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

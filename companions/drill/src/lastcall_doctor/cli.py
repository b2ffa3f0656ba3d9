"""``lastcall-doctor``, and ``lastcall doctor``: what will go wrong where a server is going to run, and what mends it.

What it knows of lastcall's options it takes from an installed lastcall. Without one it judges other servers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from lastcall_doctor import facts_app, facts_machine
from lastcall_doctor.errors import DoctorError
from lastcall_doctor.facts import Deployment, Facts, Probe, Server, Start
from lastcall_doctor.facts_file import check, read_manifest
from lastcall_doctor.facts_others import NO_NUMBERS, server_of_another
from lastcall_doctor.facts_proxy import read_proxy
from lastcall_doctor.facts_unit import read_unit
from lastcall_doctor.findings import Severity, examine, is_sound
from lastcall_doctor.output import as_json, as_text
from lastcall_drill.record import replace

PROGRAM: Final = "lastcall-doctor"
OURS: Final = "lastcall"
INSTALL: Final = "pip install lastcall (from a checkout: pip install .)"
UNREADABLE: Final = 2
FOUND_ERRORS: Final = 1
NO_APP: Final = "module:app"
_COLOURS: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def installed() -> bool:
    """Whether lastcall is there, so that ``facts_server`` can be imported."""
    return find_spec(OURS) is not None


class DoctorCommand(click.Command):
    """Lists the doctor's own flags, and says in one line that all of the server's are taken too."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the doctor's flags, and a word about the others."""
        text = f"None: lastcall is not installed here. {INSTALL}"
        own = self.get_params(ctx)
        if installed():
            from lastcall_doctor import facts_server  # noqa: PLC0415 - needs lastcall

            text = (
                f"All {facts_server.shown()} that `lastcall --help` lists; they win over those of a unit or manifest."
            )
            own = [param for param in own if not facts_server.is_flag(param)]
        records = [record for param in own if (record := param.get_help_record(ctx)) is not None]
        with formatter.section("Options"):
            formatter.write_dl(records)
        with formatter.section("Options of the server"):
            formatter.write_text(text)


class _Case:
    """What the command line asked for, and the facts that follow. Raises DoctorError for what cannot be read."""

    def __init__(self, app: str | None, given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self.app = app
        self.given = given
        self.probe_path: str | None = own["probe"]
        self.lb_idle = _seconds("--lb-idle", own["lb_idle"])
        self.looked_at = ["options", *map(str, (*own["unit"], *own["manifest"], *own["proxy"]))]
        if self.probe_path is not None and (app is None or not self.probe_path.startswith("/")):
            expected = "a path that begins with /" if app else "an application to start: lastcall doctor module:app"
            raise _unusable("--probe", self.probe_path, expected)
        if app is not None and not installed():
            raise DoctorError(f"{app} is started under lastcall, which is not installed: {INSTALL}")
        for option in ("unit", "proxy"):
            for path in own[option]:
                check(path, f"--{option}")
        self._read(own["unit"], own["manifest"])
        self.proxies = tuple(map(read_proxy, own["proxy"]))

    def _read(self, units: tuple[Path, ...], manifests: tuple[Path, ...]) -> None:
        found = {path: (read_unit(path),) for path in units} | {path: read_manifest(path) for path in manifests}
        ours = {
            path: [one for one in deployments if one.launch or path in manifests] for path, deployments in found.items()
        }
        self.unrecognized = tuple(str(path) for path, deployments in ours.items() if not deployments)
        self.deployments = tuple(
            self._with_server(deployment) for deployments in ours.values() for deployment in deployments
        )

    def facts(self) -> Facts:
        """Everything there is to see, the application's behaviour included if one was named."""
        own = self._own()
        facts = Facts(
            own=own,
            deployments=self.deployments,
            unrecognized=self.unrecognized,
            machine=facts_machine.look(),
            lb_idle=self.lb_idle,
            proxies=self.proxies,
        )
        if self.app is None or own is None:
            return facts
        tried, start, probe = self._try(self.app, own)
        self.looked_at.append(self.app if probe is None else f"{self.app} {probe.path}")
        return replace(facts, own=tried, start=start, probe=probe)

    def _own(self) -> Server | None:
        """Lastcall as the doctor's command line has it, if it is installed."""
        if not installed():
            return None
        from lastcall_doctor.facts_server import server_here  # noqa: PLC0415 - needs lastcall

        return server_here(self.app or NO_APP, self.given, os.environ)

    def _try(self, app: str, own: Server) -> tuple[Server, Start, Probe | None]:
        """Run the application with the options of the first deployment, if any; also return the server that ran."""
        from lastcall_doctor import facts_server  # noqa: PLC0415 - needs lastcall

        ours = (one for one in self.deployments if one.launch and _is_ours(one))
        deployment = next((one for one in ours if one.server and not one.server.refused), None)
        given, env, server = dict(self.given), dict[str, str](), own
        if deployment is not None and deployment.launch is not None and deployment.server is not None:
            _, theirs = facts_server.words_read(deployment.launch.words)
            given = {name: one for name, one in theirs.items() if name not in facts_server.FILES} | given
            env = dict(deployment.launch.env)
            server = replace(deployment.server, where=own.where)
        unread = facts_server.variables(facts_app.OVERRIDDEN)
        words = {name: one for name, one in given.items() if name not in facts_app.OVERRIDDEN}
        trial = facts_app.Trial(
            app=app,
            words=facts_server.words_of(words),
            environ=facts_app.kept_environment(os.environ, env, unread),
            probe=self.probe_path,
            disconnect=server.disconnect,
            lifespan_shutdown=server.lifespan_shutdown,
        )
        start, probe = facts_app.run(trial)
        return server, start, probe

    def _with_server(self, deployment: Deployment) -> Deployment:
        """The deployment, with what its command comes to, or why that is not known."""
        launch = deployment.launch
        if launch is not None and not _is_ours(deployment):
            server = server_of_another(launch, deployment.where)
            return (
                replace(deployment, server=server)
                if server
                else replace(deployment, unknown=NO_NUMBERS.format(launch.server))
            )
        if not installed():
            what = "The options of lastcall" if launch else "The command of the image, unless it is told here,"
            return replace(deployment, unknown=f"{what} cannot be read without lastcall: {INSTALL}.")
        return replace(deployment, server=self._lastcall_at(deployment))

    def _lastcall_at(self, deployment: Deployment) -> Server:
        from lastcall_doctor.facts_server import server_elsewhere, words_read  # noqa: PLC0415 - needs lastcall

        launch = deployment.launch
        if launch is None:  # the image's command: what is known of it is what the doctor was told
            return server_elsewhere(deployment.where, self.app or NO_APP, self.given, {})
        try:
            app, theirs = words_read(launch.words)
        except click.UsageError as error:
            refused = error.format_message().rstrip(".")
            return Server(where=deployment.where, refused=refused, unresolved=launch.unresolved)
        app = self.app or app or launch.env.get("LASTCALL_APP") or NO_APP
        environ = {name: value for name, value in launch.env.items() if name.startswith("LASTCALL_")}
        return server_elsewhere(deployment.where, app, {**theirs, **self.given}, environ, launch.unresolved)


def _is_ours(deployment: Deployment) -> bool:
    """Whether the deployment starts lastcall, as far as is known."""
    return deployment.launch is None or deployment.launch.server == OURS


def _unusable(option: str, value: str, expected: str) -> DoctorError:
    return DoctorError(f"{option}: {value!r} is not usable: expected {expected}")


def _seconds(flag: str, text: str | None) -> float | None:
    """The seconds that ``flag`` was given; None for ``none``, which is no limit. Raises DoctorError."""
    if text is None or text.lower() == "none":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise _unusable(flag, text, "a number of seconds above 0, or none")
    return seconds


def _painted(text: str, severity: Severity) -> str:
    return click.style(text, fg=_COLOURS[severity], bold=True)


@click.pass_context
def _doctor(ctx: click.Context, /, app: str | None, **flags: Any) -> None:
    own = {name: flags.pop(name) for name in ("unit", "manifest", "proxy", "lb_idle", "probe", "as_json")}
    given: Mapping[str, Any] = {}
    if installed():
        from lastcall_doctor.facts_server import given_to  # noqa: PLC0415 - needs lastcall

        given = given_to(ctx, flags)
    try:
        case = _Case(app, given, own)
        findings = examine(case.facts())
    except DoctorError as error:
        click.echo(f"Error: {error}", err=True)
        ctx.exit(UNREADABLE)
    if own["as_json"]:
        click.echo(as_json(findings, case.looked_at))
    else:
        click.echo(as_text(findings, case.looked_at, _painted))
    ctx.exit(0 if is_sound(findings) else FOUND_ERRORS)


def main() -> NoReturn:
    """Entry point of the command ``lastcall-doctor``. Always ends in ``SystemExit``."""
    raise SystemExit(doctor_command.main(prog_name=PROGRAM))


def _server_flags() -> list[click.Parameter]:
    if not installed():
        return []
    from lastcall_doctor.facts_server import flags  # noqa: PLC0415 - needs lastcall

    return flags()


doctor_command: Final = DoctorCommand(
    "doctor",
    callback=_doctor,
    params=[
        click.Argument(["app"], envvar="LASTCALL_APP", required=False),
        click.Option(["--unit"], type=_FILE, multiple=True, metavar="FILE", help="A systemd unit; FILE.d is read too."),
        click.Option(
            ["--manifest"],
            type=_FILE,
            multiple=True,
            metavar="FILE",
            help="A Kubernetes manifest or a Compose file (these need PyYAML), a Dockerfile, an ECS task definition, "
            "a fly.toml, or the configuration of supervisord.",
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
        *_server_flags(),
    ],
    help=(
        "Look for what will go wrong where the server is going to run: each finding with the line that mends it. "
        "APP, module:attribute, is started and stopped if it is given."
    ),
    epilog="Exit code: 0 if no finding is an error, 1 if one is, 2 if an option or a file cannot be read.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

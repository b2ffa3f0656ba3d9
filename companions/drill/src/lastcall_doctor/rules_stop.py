"""What keeps a stop from being clean where the server runs. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from lastcall_doctor.catalogue import Finding, Severity
from lastcall_doctor.facts import Deployment, Facts, Server

OURS: Final = "lastcall"
SPARE: Final = 1.0
"""Seconds that a kill timer should have beyond the longest stop."""
SHORTEST: Final = 5
"""A shorter ``--timeout-graceful-shutdown`` is not proposed."""
DELAY: Final = 5.0
"""The ``--drain-delay`` that a cluster needs to spread the news."""

_KILLER: Final = {
    "systemd": "systemd",
    "kubernetes": "the kubelet",
    "compose": "Docker",
    "docker": "Docker",
    "ecs": "ECS",
    "fly": "Fly",
    "supervisor": "supervisord",
}
_WRITTEN: Final = {
    "systemd": "{name}={seconds}",
    "kubernetes": "{name}: {seconds}",
    "compose": "{name}: {seconds}s",
    "docker": "{name} {seconds}",
    "ecs": '"{name}": {seconds}',
    "fly": "{name} = {seconds}",
    "supervisor": "{name}={seconds}",
}
_SIGTERM: Final = {
    "KillSignal": "KillSignal=SIGTERM",
    "ExecStop": "ExecStop=",
    "stopSignal": "stopSignal: SIGTERM",
    "stop_signal": "stop_signal: SIGTERM",
    "STOPSIGNAL": "STOPSIGNAL SIGTERM",
    "kill_signal": 'kill_signal = "SIGTERM"',
    "stopsignal": "stopsignal=TERM",
}
"""What to write, by the name of what says it otherwise. ``preStop``: nothing, it has to go."""
_DEFAULT_BUDGETS: Final = {
    "--timeout-graceful-shutdown": 20,
    "--graceful-timeout": 20,
    "--workers-kill-timeout": 20,
    "--timeout-cancel": 2,
    "--timeout-lifespan-shutdown": 5,
}
_LIMIT: Final = "Give it a number of seconds."
_SIGNALS: Final = {
    "SIGINT": "which lastcall takes for a Ctrl-C, with 3 s of grace",
    "SIGQUIT": "at which lastcall cancels every request at once",
    "SIGHUP": "at which lastcall does not stop",
    "SIGKILL": "which no process can answer: every request is lost",
}


def stop_timeout(facts: Facts) -> Iterator[Finding]:
    """The longest stop against the timer of whoever kills."""
    for deployment, server in _judged(facts):
        if math.isfinite(server.worst_case):
            yield from _against_timer(deployment, server)
        elif math.isfinite(deployment.timer):
            text = (
                f"A stop has no limit, since {_none(server)}, and {_kills(deployment)}: what still runs then is lost, "
            )
            text += "and the application's shutdown may never run."
            yield Finding("stop-timeout", Severity.ERROR, deployment.where, text, _LIMIT, _limits(server))


def _against_timer(deployment: Deployment, server: Server) -> Iterator[Finding]:
    needed = server.worst_case + deployment.pre_stop
    if deployment.timer >= needed + SPARE:
        return
    late = deployment.timer < needed
    hook = f" after {deployment.pre_stop:g} s of preStop" if deployment.pre_stop else ""
    text = f"A stop takes up to {server.worst_case:g} s{hook}, and {_kills(deployment)}" + (
        ": what still runs then is lost, and the application's shutdown may never run."
        if late
        else f": less than {SPARE:g} s is left for the end of the process."
    )
    seconds = math.ceil(needed + SPARE)
    raised = _WRITTEN[deployment.kind].format(name=deployment.timer_name, seconds=seconds)
    grace = math.floor(server.graceful - (needed + SPARE - deployment.timer))
    lower = f", or give requests less: {server.grace_flag} {grace}" if grace >= SHORTEST else ""
    severity = Severity.ERROR if late else Severity.WARNING
    yield Finding("stop-timeout", severity, deployment.where, text, f"Give it {seconds} s{lower}.", (raised,))


def stop_unbounded(facts: Facts) -> Iterator[Finding]:
    """Budgets that are none, where no timer puts an end to it."""
    timed = {deployment.where for deployment in facts.deployments if math.isfinite(deployment.timer)}
    for server in facts.servers:
        if server.unlimited and not server.refused and server.where not in timed:
            text = f"A stop has no limit, since {_none(server)}: one request that never ends keeps the process until "
            text += "somebody kills it."
            yield Finding("stop-unbounded", Severity.WARNING, server.where, text, _LIMIT, _limits(server))


def _kills(deployment: Deployment) -> str:
    default = "" if deployment.timer_given else ", the default"
    return f"{_KILLER[deployment.kind]} kills after {deployment.timer:g} s ({deployment.timer_name}{default})"


def _none(server: Server) -> str:
    return f"{' and '.join(server.unlimited)} {'is' if len(server.unlimited) == 1 else 'are'} none"


def _limits(server: Server) -> tuple[str, ...]:
    return tuple(f"{flag} {_DEFAULT_BUDGETS[flag]}" for flag in server.unlimited)


def stop_signal(facts: Facts) -> Iterator[Finding]:
    """A stop signal that is not SIGTERM."""
    for deployment in facts.deployments:
        if deployment.signal == "SIGTERM":
            continue
        ours = _name(deployment) == OURS
        meaning = _SIGNALS.get(deployment.signal, "which ends the process without a drain")
        if not ours and deployment.signal != "SIGKILL":
            meaning = "which each server takes in its own way"
        severity = (
            Severity.WARNING if deployment.signal == "SIGINT" or meaning.startswith("which each") else Severity.ERROR
        )
        line = _SIGTERM.get(deployment.signal_name)
        default = deployment.kind == "fly" and deployment.signal == "SIGINT"
        by = f" ({deployment.signal_name}{' is that by default' if default else ''})"
        text = f"The server is stopped by {deployment.signal}{by}, {meaning}."
        own = deployment.signal_name in ("ExecStop", "preStop")
        fix = "Take this command out: SIGTERM is sent without it." if own else "Stop it by SIGTERM."
        yield Finding("stop-signal", severity, deployment.where, text, fix, () if line is None else (line,))


def shell_in_front(facts: Facts) -> Iterator[Finding]:
    """A shell that gets the signal instead of the server."""
    for deployment in facts.deployments:
        shell = deployment.launch.shell if deployment.launch else None
        if shell is None or shell.execs or deployment.launch is None:
            continue
        everybody = deployment.service is not None and deployment.service.kill_mode == "control-group"
        if everybody:
            text = (
                f"{shell.name} -c starts the server and may stay in front of it: the signal reaches both, but systemd "
                "watches the shell then, and takes its exit code for the server's."
            )
        elif shell.name == "bash":
            text = (
                "bash -c starts the server: unless bash steps aside (recent ones do for the last command of a script), "
                "the signal goes to the shell, and the server is killed at the end of the timer."
            )
        else:
            text = (
                f"{shell.name} -c starts the server and stays in front of it: the signal goes to the shell, which does "
                "not pass it on, and the server is killed at the end of the timer."
            )
        severity = Severity.WARNING if everybody or shell.name == "bash" else Severity.ERROR
        words = " ".join(deployment.launch.words)
        yield Finding(
            "shell-in-front",
            severity,
            deployment.where,
            text,
            "Name the command without a shell, or let the shell hand over to it.",
            (f"exec {deployment.launch.server} {words}",),
        )


def kill_mode(facts: Facts) -> Iterator[Finding]:
    """Whom systemd sends its signals."""
    texts = {
        "none": (Severity.ERROR, "systemd sends no signal at a stop: the server goes on, beside its successor."),
        "process": (Severity.WARNING, "processes that the application has started outlive the service."),
        "control-group": (
            Severity.NOTE,
            "processes that the application has started get SIGTERM at the same moment as {name}, and requests that "
            "need them fail in the middle of its stop.",
        ),
    }
    for deployment in facts.deployments:
        if deployment.service is not None and deployment.service.kill_mode in texts:
            severity, text = texts[deployment.service.kill_mode]
            name = _name(deployment)
            text = f"With KillMode={deployment.service.kill_mode} {text.format(name=name)}"
            fix = f"Let {name} alone be told, and the rest be killed after it."
            yield Finding("kill-mode", severity, deployment.where, text, fix, ("KillMode=mixed",))


def drain_delay(facts: Facts) -> Iterator[Finding]:
    """Kubernetes sends connections for a while after the signal."""
    for deployment, server in _judged(facts):
        if deployment.kind != "kubernetes" or not deployment.public or server.delay or deployment.pre_stop:
            continue
        ours = server.name == OURS
        text = "The pod gets SIGTERM while the cluster still takes it out of the endpoints; "
        text += f"{'with --drain-delay 0 ' if ours else ''}the connections of these seconds are refused."
        lines = ["--drain-delay 5"] if ours else ["lifecycle: { preStop: { sleep: { seconds: 5 } } }"]
        if math.isfinite(server.worst_case) and deployment.timer < server.worst_case + DELAY + SPARE:
            lines.append(f"terminationGracePeriodSeconds: {math.ceil(server.worst_case + DELAY + SPARE)}")
        fix = "Accept for some seconds more, and count them in the grace period."
        yield Finding("drain-delay", Severity.WARNING, deployment.where, text, fix, tuple(lines))


def _name(deployment: Deployment) -> str:
    """The server of the deployment: lastcall, where the command is the image's."""
    return deployment.launch.server if deployment.launch is not None else OURS


def _judged(facts: Facts) -> Iterator[tuple[Deployment, Server]]:
    for deployment in facts.deployments:
        if deployment.server is not None and not deployment.server.refused:
            yield deployment, deployment.server

"""Host rules: what is wrong with the unit or container, the machine and its Python. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from lastcall_doctor.catalogue import Finding, Severity
from lastcall_doctor.facts import Facts, Server

RESERVED: Final = 64
"""Descriptors that lastcall leaves to the application, as ``lastcall.server`` has it."""
FEW: Final = 1024
"""A soft limit below this one is low for a server."""
ENOUGH: Final = 65536
DEFAULT_BACKLOG: Final = 2048
NOTIFIES: Final = frozenset({"gunicorn", "lastcall"})
"""Servers that tell systemd when they are ready."""
BEATS: Final = frozenset({"lastcall"})
"""Servers that tell systemd again and again that they live."""


def commands(facts: Facts) -> Iterator[Finding]:
    """Commands that would not start, or could not be read."""
    for file in facts.unrecognized:
        text = "No command in this file starts a server that is known, and no container leaves it to its image."
        fix = "Name the file that starts it; a script that starts it cannot be looked into."
        yield Finding("no-server", Severity.WARNING, file, text, fix)
    for deployment in facts.deployments:
        if deployment.unknown:
            fix = "Look at its options yourself: the longest stop, the keep-alive timeout, the address."
            yield Finding("server-unknown", Severity.NOTE, deployment.where, deployment.unknown, fix)
    for server in facts.servers:
        if server.unresolved:
            text = f"Words of the command are not known here: {' '.join(server.unresolved)}."
            fix = "Give these options to the doctor itself; they win over those of the command."
            yield Finding("command-unread", Severity.NOTE, server.where, text, fix)
        elif server.refused:
            text = f"lastcall would not start: {server.refused}."
            fix = "Correct the option; docs/reference/options.md has all of them."
            yield Finding("command-refused", Severity.ERROR, server.where, text, fix)


def service_type(facts: Facts) -> Iterator[Finding]:
    """What systemd waits for, and the server does not do."""
    for deployment in facts.deployments:
        service = deployment.service
        if service is None:
            continue
        if service.type in ("notify", "notify-reload", "forking", "oneshot"):
            if (
                deployment.launch is not None
                and deployment.launch.server in NOTIFIES
                and service.type.startswith("notify")
            ):
                continue
            name = deployment.launch.server if deployment.launch is not None else "lastcall"
            waits = {"forking": "the server to fork and its parent to end", "oneshot": "the server to end"}
            what = waits.get(service.type, f"READY=1, which {name} does not send")
            text = f"Type={service.type} waits for {what}: the start of the unit times out, or never completes."
            fix = "Let the unit count as started when the process is."
            yield Finding("service-type", Severity.ERROR, deployment.where, text, fix, ("Type=exec",))
        beats = deployment.launch is not None and deployment.launch.server in BEATS
        if 0 < service.watchdog < math.inf and not beats:
            text = (
                f"WatchdogSec={service.watchdog:g} s kills a service that sends no WATCHDOG=1, and this one sends none."
            )
            yield Finding("service-type", Severity.ERROR, deployment.where, text, "Take it out.", ("WatchdogSec=0",))


def restart(facts: Facts) -> Iterator[Finding]:
    """Whether systemd starts the server again."""
    for deployment in facts.deployments:
        if deployment.service is None:
            continue
        mode = deployment.service.restart
        limit = deployment.server.limit_max_requests if deployment.server else None
        if limit is not None and mode not in ("always", "on-success"):
            text = (
                f"After --limit-max-requests {limit} the server ends with exit code 0, and Restart={mode} leaves it so."
            )
            fix = "Start it again whatever the exit code is."
            yield Finding("restart", Severity.WARNING, deployment.where, text, fix, ("Restart=always",))
        elif mode == "no":
            text = "Restart=no: a server that has crashed stays down."
            fix = "Start it again after a failure, but not after a wrong option."
            lines = ("Restart=on-failure", "RestartPreventExitStatus=2")
            yield Finding("restart", Severity.WARNING, deployment.where, text, fix, lines)


def readiness(facts: Facts) -> Iterator[Finding]:
    """What Kubernetes asks before it sends requests."""
    for deployment in facts.deployments:
        server = deployment.server
        if deployment.kind != "kubernetes" or not deployment.public or server is None or server.refused:
            continue
        if server.name != "lastcall":
            if deployment.readiness is None:
                text = "Without a readinessProbe the pod gets connections while the server still starts."
                fix = "Let the application answer one; it should say no from the signal on."
                yield Finding("readiness", Severity.WARNING, deployment.where, text, fix)
            continue
        prefix = server.health_path or "/-"
        line = f"httpGet: {{ path: {prefix}/ready, port: {server.port} }}"
        lines = ["readinessProbe:", f"  {line}", "  periodSeconds: 2", "  failureThreshold: 1"]
        if not server.health_path:
            lines.insert(0, f"--health-path {prefix}")
        if deployment.readiness is None:
            text = "Without a readinessProbe the pod gets connections while the server still starts, and refuses them."
            fix = "Let lastcall answer the probe."
            yield Finding("readiness", Severity.WARNING, deployment.where, text, fix, tuple(lines))
        elif server.health_path and deployment.readiness.path == f"{server.health_path}/live":
            text = f"The readinessProbe asks {deployment.readiness.path}, which says yes during a stop too."
            yield Finding("readiness", Severity.WARNING, deployment.where, text, "Ask for readiness.", (line,))


def loopback(facts: Facts) -> Iterator[Finding]:
    """A container's server that only the container can reach."""
    for deployment in facts.deployments:
        server = deployment.server
        if deployment.kind == "systemd" or not deployment.public or deployment.launch is None or server is None:
            continue
        if server.loopback and not server.refused:
            text = "The server listens on 127.0.0.1 inside of its container, where nobody else can reach it."
            yield Finding(
                "loopback", Severity.ERROR, deployment.where, text, "Listen on every interface.", ("--host 0.0.0.0",)
            )


def descriptors(facts: Facts) -> Iterator[Finding]:
    """The limit of open descriptors against the limits of connections and requests."""
    for deployment in facts.deployments:
        if deployment.service is not None and deployment.server is not None:
            yield from _descriptors(deployment.server, deployment.service.nofile, "LimitNOFILE={}")
    if not facts.deployments and facts.own is not None:
        yield from _descriptors(facts.own, facts.machine.nofile, "ulimit -n {}")


def _descriptors(server: Server, soft: float, line: str) -> Iterator[Finding]:
    usable = soft - RESERVED
    limits = {"--limit-connections": server.limit_connections, "--limit-concurrency": server.limit_concurrency}
    for flag, limit in limits.items():
        if limit is not None and limit > usable:
            text = (
                f"{flag} {limit} cannot be reached: the process may have {soft:g} descriptors open, which leaves "
                f"{max(usable, 0):g} connections."
            )
            lines = (line.format(max(ENOUGH, 2 ** math.ceil(math.log2(limit + RESERVED)))),)
            yield Finding("descriptors", Severity.ERROR, server.where, text, "Raise the limit of descriptors.", lines)
            return
    if soft < FEW:
        text = f"The process may have {soft:g} descriptors open, which leaves {max(usable, 0):g} connections."
        lines = (line.format(ENOUGH),)
        yield Finding("descriptors", Severity.WARNING, server.where, text, "Raise the limit of descriptors.", lines)


def backlog(facts: Facts) -> Iterator[Finding]:
    """The kernel's limit of a listener's backlog, on the machine that the doctor runs on."""
    most = facts.machine.somaxconn
    if most is None or any(deployment.service is None for deployment in facts.deployments):
        return
    for server in facts.servers:
        if server.name == "lastcall" and server.backlog > most:
            text = f"--backlog {server.backlog} is cut to {most} by net.core.somaxconn: bursts beyond it are dropped."
            fix = "Raise it, in a file below /etc/sysctl.d."
            lines = (f"net.core.somaxconn = {max(server.backlog, DEFAULT_BACKLOG)}",)
            yield Finding("backlog", Severity.WARNING, server.where, text, fix, lines)


def python(facts: Facts) -> Iterator[Finding]:
    """What is missing in this Python, or slows it down."""
    for server in facts.servers:
        for flag, extra in server.missing_extras:
            text = f"{flag} needs a package that is not installed in this Python."
            line = f"pip install 'lastcall[{extra}]'"
            yield Finding("missing-extra", Severity.ERROR, server.where, text, "Install the extra.", (line,))
        if server.driver == "asyncio" and facts.machine.native:
            text = "--driver asyncio does without the compiled reactor, which is there and faster."
            yield Finding("portable-driver", Severity.NOTE, server.where, text, "Leave it out.", ("--driver auto",))
    if facts.machine.missing_modules:
        text = f"These compiled modules of lastcall are missing: {', '.join(facts.machine.missing_modules)}."
        line = "pip install --force-reinstall lastcall"
        yield Finding("missing-modules", Severity.ERROR, "this Python", text, "Install lastcall again.", (line,))
    debugs = [
        (deployment.where, deployment.launch.debug) for deployment in facts.deployments if deployment.launch is not None
    ]
    for where, debug in debugs or [("this Python", facts.machine.debug)]:
        if debug:
            text = f"Python runs in a debug mode here ({debug}): several times slower, and with other warnings."
            yield Finding("debug-python", Severity.WARNING, where, text, f"Leave {debug} out.")


def no_effect(facts: Facts) -> Iterator[Finding]:
    """Options that do nothing."""
    for server in facts.servers:
        for warning in server.warnings:
            sentence = f"{warning[:1].upper()}{warning[1:]}."
            yield Finding("no-effect", Severity.NOTE, server.where, sentence, "Leave it out.")

"""What kind of file the doctor was given: by its name, and by what stands in it. What it cannot read it says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lastcall_doctor import facts_docker, facts_platforms, facts_supervisor
from lastcall_doctor.facts import Deployment, UnreadableError
from lastcall_doctor.facts_manifest import candidates, choose
from lastcall_doctor.facts_unit import read_text

READ: Final = (
    "systemd units (--unit), Kubernetes manifests, Compose files, Dockerfiles, ECS task definitions, fly.toml, "
    "supervisord's configuration (--manifest), nginx and HAProxy (--proxy)"
)

_FROM: Final = re.compile(r"^\s*FROM\s+\S+", re.MULTILINE | re.IGNORECASE)
_SUPERVISOR: Final = re.compile(
    r"^\[(?:(?:fcgi-)?program:[^\]]+|supervisord|unix_http_server|group:[^\]]+)\]", re.MULTILINE
)
_UNIT: Final = re.compile(r"^\[(?:Service|Unit|Install)\]", re.MULTILINE)
_FLY: Final = re.compile(
    r"^(?:kill_(?:timeout|signal)\s*=|\[(?:\[services\]|http_service|processes|experimental)\])", re.MULTILINE
)
_CADDY: Final = re.compile(r"^\s*reverse_proxy\s", re.MULTILINE)
_TRAEFIK: Final = re.compile(
    r"^\s*(?:entryPoints|providers|http)\s*:|^\[(?:entryPoints|providers|http)\b", re.MULTILINE
)
_NGINX: Final = re.compile(r"^\s*(?:server|upstream|location|http)\b[^{;\n]*\{", re.MULTILINE)


_YAML: Final = re.compile(r"^\s*(?:apiVersion|services)\s*:", re.MULTILINE)

_KINDS: Final[tuple[tuple[str, Callable[[str, str], object]], ...]] = (
    # A word for the kind, and whether a file is of it, by its name in lower case and its text. The first one counts.
    ("procfile", lambda name, _: name == "procfile" or name.endswith(".procfile")),
    ("caddyfile", lambda name, _: name.startswith("caddyfile") or name.endswith(".caddyfile")),
    ("dockerfile", lambda name, _: name.startswith(("dockerfile", "containerfile")) or name.endswith(".dockerfile")),
    ("ecs", lambda _, text: '"containerDefinitions"' in text),
    ("supervisor", lambda _, text: _SUPERVISOR.search(text)),
    ("unit", lambda _, text: _UNIT.search(text)),
    ("traefik", lambda name, text: name.startswith("traefik") or ("entryPoints" in text and _TRAEFIK.search(text))),
    ("fly", lambda name, text: name.endswith(".toml") and (name.startswith("fly") or _FLY.search(text))),
    ("dockerfile", lambda _, text: _FROM.search(text) and not _YAML.search(text)),
    ("caddyfile", lambda _, text: _CADDY.search(text) and "{" in text and ";" not in text),
)


def kind_of(path: Path, text: str) -> str:
    """A word for what a file is, ``manifest`` for YAML that is nothing else, and for what is not known."""
    return next((kind for kind, holds in _KINDS if holds(path.name.lower(), text)), "manifest")


def read_manifest(path: Path) -> tuple[Deployment, ...]:
    """What the file starts: Kubernetes, Compose, a Dockerfile, an ECS task definition, fly.toml or supervisord's.

    Raises :class:`UnreadableError` for what cannot be read, with what could be instead; DoctorError without PyYAML
    where that is needed.
    """
    text = read_text(path)
    file = str(path)
    kind = kind_of(path, text)
    if kind == "dockerfile":
        return facts_docker.deployments_of(text, file)
    if kind == "ecs":
        return facts_platforms.ecs(text, file)
    if kind == "fly":
        return facts_platforms.fly(text, file)
    if kind == "supervisor":
        return facts_supervisor.supervisor(text, file)
    refuse(kind, file, "--manifest")
    if _NGINX.search(text):
        raise UnreadableError(file, None, "this looks like nginx: give it to --proxy")
    return choose(candidates(text, file))


def refuse(kind: str, file: str, option: str) -> None:
    """Raise :class:`UnreadableError` for a kind that ``option`` does not read, with what to do instead."""
    unread = {
        "procfile": "a Procfile, which the doctor cannot read: it says nothing of signals and timers. Write its "
        "command as a unit, or give it to the doctor itself",
        "caddyfile": "a Caddyfile, which the doctor cannot read. What matters to it: --lb-idle SECONDS (Caddy's "
        "keepalive, 2 min by default), and that flush_interval -1 passes streams on",
        "traefik": "Traefik's configuration, which the doctor cannot read. What matters to it: --lb-idle SECONDS "
        "(serversTransport.forwardingTimeouts.idleConnTimeout, 90 s by default)",
    }
    if kind in unread:
        raise UnreadableError(file, None, f"this is {unread[kind]}. It reads {READ}")
    there = {"unit": ("a systemd unit", "--unit")}
    there |= dict.fromkeys(("dockerfile", "ecs", "fly", "supervisor"), ("no systemd unit and no proxy's", "--manifest"))
    if kind in there and there[kind][1] != option:
        what, other = there[kind]
        raise UnreadableError(file, None, f"this is {what} file: give it to {other}")


def check(path: Path, option: str) -> None:
    """Raise :class:`UnreadableError` if ``--unit`` or ``--proxy`` was given what it does not read.

    A pipe is not looked at: it can be read once.
    """
    if not path.is_file():
        return
    refuse(kind_of(path, read_text(path)), str(path), option)

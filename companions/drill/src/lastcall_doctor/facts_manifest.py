"""Reads Kubernetes manifests and Compose files."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from typing import Final

from lastcall_doctor.facts import Deployment, Launch, Readiness
from lastcall_doctor.facts_unit import signal_sent
from lastcall_doctor.images import is_infrastructure
from lastcall_doctor.launch import launch_of
from lastcall_doctor.spans import go_duration
from lastcall_doctor.yaml_lines import Block, Document, documents
from lastcall_drill.record import Record

DEFAULT_GRACE: Final = 30.0
"""terminationGracePeriodSeconds of Kubernetes."""
DEFAULT_COMPOSE_GRACE: Final = 10.0
"""stop_grace_period of Compose, and the timeout of ``docker stop``."""

_POD_AT: Final = {
    "Pod": ("spec",),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "Rollout", "Service"),
        ("spec", "template", "spec"),
    ),
}
_SLEEP: Final = re.compile(r"\bsleep\s+([0-9]{1,9}(?:\.[0-9]{1,9})?)\b")


class Candidate(Record):
    """A container that may be lastcall's. ``silent``: no command is given, so that of its image runs."""

    deployment: Deployment
    silent: bool


def choose(found: list[Candidate]) -> tuple[Deployment, ...]:
    """The deployments to judge among the containers of a file.

    If no command names a server, those without a command, whose images have one: every one in Kubernetes; in Compose
    those that are built here, or the only one. Databases, queues and proxies, as far as their images are known, never.
    """
    named = [one.deployment for one in found if one.deployment.launch is not None]
    return tuple(named or [one.deployment for one in found if one.silent])


def candidates(text: str, file: str) -> list[Candidate]:
    """Every container in the documents of ``text``. Raises :class:`UnreadableError`."""
    found: list[Candidate] = []
    for one in documents(text, file):
        document = Document(file)
        if "services" in one and "kind" not in one:
            found += _compose(one, document)
        else:
            found += _kubernetes(one, document)
    return found


def _kubernetes(one: Block, document: Document) -> Iterator[Candidate]:
    kind = document.text(one, "kind")
    if kind == "List" or kind.endswith("List"):
        for item in document.mappings(one, "items"):
            yield from _kubernetes(item, document)
        return
    at = _POD_AT.get(kind)
    if at is None:
        return
    pod = one
    for key in at:
        pod = document.mapping(pod, key)
    name = document.text(document.mapping(one, "metadata"), "name", "?")
    containers = document.mappings(pod, "containers")
    for container in containers:
        yield _container(pod, container, document, f"{kind} {name}", alone=len(containers) == 1)


def _container(pod: Block, container: Block, document: Document, owner: str, *, alone: bool) -> Candidate:
    env = {
        document.text(pair, "name"): document.text(pair, "value")
        for pair in document.mappings(container, "env")
        if "value" in pair
    }
    words = document.words(container, "command") + document.words(container, "args")
    image = document.text(container, "image")
    lifecycle = document.mapping(container, "lifecycle")
    probe = container.get("readinessProbe")
    key = "terminationGracePeriodSeconds"
    host = document.text(pod, "hostNetwork").lower() == "true"
    name = document.text(container, "name", "?")
    killed_by = _killed_by(document.mapping(lifecycle, "preStop"), document)
    deployment = Deployment(
        kind="kubernetes",
        where=f"{document.file}: {owner}, container {name}",
        launch=launch_of(words, env),
        timer=_grace(pod, key, document),
        timer_name=key,
        timer_given=pod.get(key) is not None,
        signal=killed_by or document.text(lifecycle, "stopSignal", "SIGTERM"),
        signal_name="preStop" if killed_by else "stopSignal",
        pre_stop=_pre_stop(document.mapping(lifecycle, "preStop"), document),
        public=alone and not host and "Job" not in owner.partition(" ")[0],
        readiness=_readiness(container, document) if probe is not None else None,
    )
    return Candidate(deployment, silent=not words and not is_infrastructure(image))


def _killed_by(hook: Block, document: Document) -> str:
    """The signal, other than SIGTERM, that the hook's command sends; empty if it sends none."""
    signal = signal_sent(document.words(document.mapping(hook, "exec"), "command"))
    return "" if signal == "SIGTERM" else signal


def _grace(pod: Block, key: str, document: Document) -> float:
    value = pod.get(key)
    if value is None:
        return DEFAULT_GRACE
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise document.refuse(pod.lines.get(key), f"{key} has to be a whole number of seconds, not {value!r}")
    return float(value)


def _pre_stop(hook: Block, document: Document) -> float:
    """Seconds that the hook is known to take: those of ``sleep``."""
    action = document.mapping(hook, "sleep")
    seconds = action.get("seconds", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise document.refuse(action.lines.get("seconds"), f"seconds has to be a number, not {seconds!r}")
    command = " ".join(document.words(document.mapping(hook, "exec"), "command"))
    return float(seconds) + sum(float(match) for match in _SLEEP.findall(command))


def _readiness(container: Block, document: Document) -> Readiness:
    probe = document.mapping(container, "readinessProbe")
    return Readiness(document.text(document.mapping(probe, "httpGet"), "path"))


def _compose(one: Block, document: Document) -> list[Candidate]:
    services = document.mapping(one, "services")
    found = [
        (name, service, _service(str(name), service, document))
        for name in services
        for service in [document.mapping(services, name)]
    ]
    others = [(service, one) for _, service, one in found if not is_infrastructure(document.text(service, "image"))]
    built = [one for service, one in others if "build" in service]
    silent = [one for _, one in others if one.silent]
    # The only one that could be it: beside a service with a command of its own, an image may hold anything.
    likely = [one for one in silent if one in built] or (silent if len(others) == 1 else [])
    return [Candidate(one.deployment, silent=one in likely) for _, _, one in found]


def _service(name: str, service: Block, document: Document) -> Candidate:
    key = "stop_grace_period"
    timer = DEFAULT_COMPOSE_GRACE
    if service.get(key) is not None:
        try:
            timer = go_duration(document.text(service, key))
        except ValueError as error:
            line = service.lines.get(key)
            raise document.refuse(line, f"{key}: {service[key]!r} is not usable: expected {error}") from None
    words = _compose_words(service, "entrypoint", document) + _compose_words(service, "command", document)
    deployment = Deployment(
        kind="compose",
        where=f"{document.file}: service {name}",
        launch=_compose_launch(words, service, document),
        timer=timer,
        timer_name=key,
        timer_given=service.get(key) is not None,
        signal=document.text(service, "stop_signal", "SIGTERM").upper(),
        signal_name="stop_signal",
        public=document.text(service, "network_mode") != "host",
    )
    return Candidate(deployment, silent=not words)


def _compose_launch(words: list[str], service: Block, document: Document) -> Launch | None:
    env: dict[str, str] = {}
    given = service.get("environment")
    if isinstance(given, Block):
        env = {str(name): document.text(given, name) for name in given}
    elif given is not None:
        for pair in document.words(service, "environment"):
            name, _, value = pair.partition("=")
            env[name] = value
    return launch_of(words, env)


def _compose_words(service: Block, key: str, document: Document) -> list[str]:
    """A command is a list, or text that Compose splits as a shell would, without starting one."""
    value = service.get(key)
    if not isinstance(value, str):
        return document.words(service, key)
    try:
        return shlex.split(value)
    except ValueError as error:
        raise document.refuse(service.lines.get(key), f"{key} is no command: {error}") from None

"""What pip's output means, in one plain sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

from lastcall_drill.record import Record


class Kind(Enum):
    """Why an installation failed."""

    NETWORK = "network"
    PYTHON = "python"  # the release does not support this Python
    RELEASE = "release"  # there is no such release
    PROJECT = "project"  # there is no such project
    CONFLICT = "conflict"
    BUILD = "build"
    OTHER = "other"


NETWORK: Final = Kind.NETWORK


class Reason(Record):
    """Why an installation failed, and how to say so."""

    kind: Kind
    sentence: str


_NETWORK: Final = re.compile(
    r"NewConnectionError|Failed to establish a new connection|NameResolutionError|Temporary failure in name resolution"
    r"|ConnectTimeoutError|ReadTimeoutError|ProxyError|ConnectionResetError|Network is unreachable"
)
_OTHER_PYTHON: Final = re.compile(r"requires a different Python: \S+ not in '([^']+)'")
_IGNORED: Final = re.compile(r"Ignored the following versions that require a different python version: (.*)")
_MISSING: Final = re.compile(r"Could not find a version that satisfies the requirement (.+?) \(from versions: (.*?)\)")
_BUILD: Final = re.compile(
    r"subprocess-exited-with-error|Failed building wheel|Failed to build|metadata-generation-failed"
)
_CONFLICT: Final = re.compile(r"ResolutionImpossible|conflicting dependencies")


def explain(output: str, requirements: Sequence[str], python: str) -> Reason:
    """Why pip could not install ``requirements`` for Python ``python``, from what it printed."""
    what = ", ".join(requirements)
    # Without a network pip goes on to say that there is no such release: look for this first.
    if _NETWORK.search(output):
        sentence = (
            f"{what} is not kept from before, and there is no network to install it: pip reached no package index"
        )
        return Reason(Kind.NETWORK, sentence)
    different = _OTHER_PYTHON.search(output)
    if different:
        return Reason(Kind.PYTHON, f"{what} does not support Python {python}: it requires {different[1]}")
    missing = _MISSING.search(output)
    if missing:
        return _missing(missing[1], missing[2], output, python)
    if _CONFLICT.search(output):
        return Reason(Kind.CONFLICT, f"{what} cannot be installed together: their dependencies conflict")
    if _BUILD.search(output):
        sentence = f"{what} has no wheel for Python {python} on this machine, and could not be built from source"
        return Reason(Kind.BUILD, sentence)
    lines = [line for line in output.splitlines() if line.strip()] or ["pip said nothing"]
    errors = [line.partition("ERROR:")[2].strip() for line in lines if "ERROR:" in line]
    return Reason(Kind.OTHER, f"{what} cannot be installed: {(errors or lines)[-1]}")


def _missing(requirement: str, listed: str, output: str, python: str) -> Reason:
    name, _, release = requirement.partition("==")
    ignored = _IGNORED.search(output)
    for entry in ignored[1].split(";") if ignored else ():
        version, _, needs = entry.strip().partition(" Requires-Python ")
        if version == release:
            return Reason(Kind.PYTHON, f"{requirement} does not support Python {python}: it requires {needs}")
    versions = [one.strip() for one in listed.split(",") if one.strip() not in ("", "none")]
    if not versions:
        sentence = f"{name} is not on the package index, or has no release for Python {python} on this machine"
        return Reason(Kind.PROJECT, sentence)
    newest = next((one for one in reversed(versions) if re.fullmatch(r"[\d.]+", one)), versions[-1])
    sentence = f"there is no release {requirement} for Python {python} on the package index: the newest is {newest}"
    return Reason(Kind.RELEASE, sentence)

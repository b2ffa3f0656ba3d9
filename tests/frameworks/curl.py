"""curl as a client: what it printed, and what its ``--verbose`` trace says about connections and heads."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from typing import Any

SECONDS = 20


@dataclass(frozen=True)
class Head:
    """A response head from the trace. Header names are in lower case."""

    version: str
    status: int
    headers: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        """Every value of a header, in the order of the wire."""
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True)
class Curl:
    """What a run of curl has shown."""

    stdout: bytes
    trace: str

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def json(self) -> Any:
        """The body, which must be one JSON document."""
        return json.loads(self.stdout)

    @cached_property
    def documents(self) -> list[Any]:
        """JSON documents, of several transfers one after the other."""
        decoder, rest, found = json.JSONDecoder(), self.text.strip(), []
        while rest:
            document, end = decoder.raw_decode(rest)
            found.append(document)
            rest = rest[end:].strip()
        return found

    @cached_property
    def heads(self) -> list[Head]:
        """All response heads, interim ones too."""
        heads: list[Head] = []
        for line in self.trace.splitlines():
            if status := re.match(r"< (HTTP/[\d.]+) (\d{3})", line):
                heads.append(Head(status[1], int(status[2]), []))
            elif field := re.match(r"< ([^:]+): *(.*)", line):
                heads[-1].headers.append((field[1].lower(), field[2]))
        return heads

    @property
    def statuses(self) -> list[int]:
        return [head.status for head in self.heads]

    @property
    def reused(self) -> int:
        """How many transfers went over a connection that was there already."""
        return len(re.findall(r"^\* Re-using existing .*connection", self.trace, re.MULTILINE))


def curl(*arguments: str) -> Curl:
    """Run curl without configuration files and proxies. A transfer that fails is an AssertionError."""
    command = ["curl", "-q", "--verbose", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(SECONDS)]
    done = subprocess.run([*command, *arguments], capture_output=True, timeout=SECONDS + 5, check=False)
    trace = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"curl {arguments}: exit code {done.returncode}\n{trace}"
    return Curl(done.stdout, trace)

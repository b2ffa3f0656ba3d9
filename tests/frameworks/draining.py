"""Stops of sample applications with streams open: raw clients that see where a stream ends, and the JSON report."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testing.peer import Peer
from testing.process import ServerProcess
from tests.frameworks.apps import common
from tests.frameworks.serving import ROOT, WARNINGS

ALARMS = ("Traceback", "ERROR", "WARNING", "CRITICAL", "never retrieved")


@dataclass
class Drained:
    """A sample application that is to be stopped. ``report`` is there after `stopped`."""

    process: ServerProcess
    url: str
    report_file: Path
    report: dict[str, Any] = field(default_factory=dict)

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Send the signal, and wait until the stop has begun."""
        self.process.signal(signum)
        self.process.wait_for(rf"Stopping \({signum.name}\)")

    def stopped(self, alarms: Sequence[str] = ALARMS) -> dict[str, Any]:
        """Wait for the end, which must be in order: exit code 0, the lifespan ended, none of ``alarms`` on stderr."""
        assert self.process.wait() == 0, self.process.stderr
        stderr = self.process.stderr
        assert stderr.count(common.CLOSED) == 1, stderr
        # The last line is a warning if a response was cut: the report, which is looked at apart.
        said = "\n".join(line for line in stderr.splitlines() if not line.startswith("WARNING:  Stopped ("))
        for alarm in alarms:
            assert alarm not in said, stderr
        self.report = json.loads(self.report_file.read_text())
        assert self.report["lifespan"] == "complete"
        return self.report


@contextmanager
def draining(app: str, report_file: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Drained]:
    """Serve ``tests.frameworks.apps.APP``. Without a stop in the block, the process is killed at its end."""
    # The watchdog is far away: on a busy machine the end of an interpreter takes longer than the second that it has.
    arguments = ["--timeout-lifespan-shutdown", "60", *options, "--drain-report", str(report_file)]
    with ServerProcess(arguments, f"tests.frameworks.apps.{app}", env={**WARNINGS, **(env or {})}, cwd=ROOT) as process:
        yield Drained(process, process.wait_ready()[0], report_file)


class Streaming(Peer):
    """A client of one stream, whose head it has read: a 200, chunked.

    :param headers: lines of the request.
    :param first: also wait for the first chunk.
    """

    def __init__(self, url: str, path: str, *headers: str, first: bool = True) -> None:
        super().__init__(url)
        self.whole = False
        try:
            self.request(path, *headers)
            status, fields = self.head()
            assert (status, fields["transfer-encoding"]) == (200, "chunked")
            self.body = self.chunk() if first else b""
        except BaseException:
            self.close()
            raise

    def read(self) -> bytes:
        """Read to the end of the stream, and leave. All of the body; ``whole`` says if its end was the last chunk."""
        try:
            while data := self.chunk():
                self.body += data
        except EOFError:
            self.whole = False
        else:
            self.whole = True
        self.close()
        return self.body


def names(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Path, kind and outcome of each response that was cut."""
    return sorted((cut["path"], cut["kind"], cut["outcome"]) for cut in report["cut"])

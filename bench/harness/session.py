"""What the measurements share: cores, the servers that can be started, progress, and where results go."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import report, venvs
from .catalogue import ROOT, Catalogue, Server
from .errors import BenchError

PAGE = ROOT / "docs" / "explanation" / "performance.md"


@dataclass
class Session:
    """One call of bench/run.py.

    The servers run on `server_core`; the load generator and this process stay on `load_core`. `problems` collects
    what could not be measured and why: it is printed with the results, and the rest of the run goes on.
    """

    catalogue: Catalogue
    server_core: int
    load_core: int
    refresh: bool = False
    json_path: Path | None = None
    write_docs: bool = False
    problems: list[str] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)

    def claim_cores(self) -> None:
        """Move this process to the load core. Raises BenchError if the machine does not have the two cores."""
        available = os.sched_getaffinity(0)
        if self.server_core == self.load_core or not {self.server_core, self.load_core} <= available:
            raise BenchError(
                f"need two different cores, have {sorted(available)}: choose with --server-core and --load-core"
            )
        os.sched_setaffinity(0, {self.load_core})

    def share_cores(self) -> None:
        """Let this process run on both cores, for what is measured with servers on both."""
        os.sched_setaffinity(0, {self.server_core, self.load_core})

    def check_docs(self, section: str) -> None:
        """With --write-docs, make sure before a long run that the page has a place for the result."""
        if self.write_docs:
            report.replace_section(self._page(), section, "")

    def prepare(self, servers: Sequence[Server]) -> None:
        """Install what is missing; servers that cannot be installed are reported and left out.

        Raises BenchError if none is left.
        """
        for server in servers:
            self.progress(f"preparing {server.name}")
            try:
                venvs.ensure(server, self.catalogue, refresh=self.refresh)
            except BenchError as exc:
                self.problem(f"{server.name} is not measured: {exc}")
                continue
            if stale := venvs.stale_extensions(server):
                self.problem(f"{server.name} runs compiled modules older than their source: {', '.join(stale)}")
            self.servers.append(server)
        if not self.servers:
            raise BenchError("no server can be measured")

    def problem(self, text: str) -> None:
        """Show something that the reader of the results must know, and remember its first and last line for them."""
        self.progress(text)
        lines = text.replace(str(ROOT), ".").splitlines()
        self.problems.append(lines[0] if len(lines) == 1 else f"{lines[0]} [...] {lines[-1].strip()}")

    def progress(self, text: str) -> None:
        """One line on stderr, so that stdout holds nothing but the result."""
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def environment(self) -> tuple[str, dict[str, dict[str, str]]]:
        """The interpreter and kernel in words, and every measured server's versions."""
        found = {server.name: venvs.versions(server, self.catalogue) for server in self.servers}
        python = next((venvs.python_version(server) for server in self.servers if server.role != "limit"), "no Python")
        return f"{python}, {platform.system()} {platform.release()}, {platform.machine()}", found

    def publish(self, section: str, how: str, table: str, data: Any) -> None:
        """Print the result as Markdown and, where asked for, write it to the JSON file and into the documentation."""
        environment, found = self.environment()
        lines = [measured(section, environment, how), "", table, ""]
        lines += report.version_lines(found, self.catalogue.common_distributions)
        text = "\n".join(lines)
        commands = "\n".join(f"- {server.label}: `{server.shown}`" for server in self.servers)
        text += f"\n\nCommands, each prefixed with `taskset -c {self.server_core}`:\n\n{commands}\n"
        commands_of = {server.name: server.shown for server in self.servers}
        self.give_out(
            section, text, {"environment": environment, "versions": found, "commands": commands_of, "results": data}
        )

    def give_out(self, section: str, text: str, data: dict[str, Any]) -> None:
        """Print a result, with what went wrong, and put it wherever it was asked for."""
        if self.problems:
            notes = "\n".join(f"- {problem}" for problem in self.problems)
            text += f"\nNot as it should be:\n\n{notes}\n"
        print(text, flush=True)
        if self.json_path:
            record = {"measurement": section, "date": _today(), "problems": self.problems, **data}
            self.json_path.write_text(json.dumps(record, indent=2, default=dataclasses.asdict) + "\n")
        if self.write_docs:
            PAGE.write_text(report.replace_section(self._page(), section, text))

    def _page(self) -> str:
        """The documentation page. Raises BenchError if there is none."""
        try:
            return PAGE.read_text()
        except FileNotFoundError:
            raise BenchError(f"--write-docs: there is no {PAGE.relative_to(ROOT)}") from None


def measured(section: str, environment: str, how: str) -> str:
    """The sentence above a table."""
    return f"Measured {_today()} with `bench/run.py {section}` on {environment}; {how}"


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()

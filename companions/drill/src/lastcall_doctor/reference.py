"""The reference page of findings, made from the catalogue: ``python -m lastcall_doctor.reference``.

Writes ``docs/reference/doctor.md`` (or the file named on the command line). A test compares the committed page with
:func:`page`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lastcall_doctor.catalogue import CATALOGUE, GROUPS
from lastcall_doctor.facts_others import known_others
from lastcall_doctor.launch import SERVERS

PAGE: Final = Path("docs", "reference", "doctor.md")

_HEAD: Final = """\
<!-- Made by `python -m lastcall_doctor.reference` companions/drill/src/lastcall_doctor/catalogue.py. Do not edit. -->

# Findings of the doctor

What `lastcall doctor` can find; `lastcall-doctor` is the same command. [Check a deployment with the
doctor](../how-to/check-with-doctor.md) says how to ask it.

- **error**: requests or the application's clean-up will be lost, or the server will not run. The exit code is 1.
- **warning**: something will be lost in a case that is not rare.
- **note**: worth knowing.

Exit codes: 0 no error was found, 1 at least one was, 2 an option or a file could not be read.

## What it reads

| option | reads |
|---|---|
| `lastcall`'s own options | the server as it will be started. They win over those of a unit or manifest |
| `module:app` | starts the application in a process of its own on a free port, and stops it |
| `--unit FILE` | a systemd unit, the drop-ins in `FILE.d`, and its environment files; or what `systemctl cat` prints |
| `--manifest FILE` | Kubernetes or Compose: every container whose command is a server that is known. Needs PyYAML |
| `--manifest FILE` | also a Dockerfile (its last stage), ECS task definition (JSON), `fly.toml`, supervisord's file |
| `--proxy FILE` | nginx (`include` is not followed: give it the output of `nginx -T`) or HAProxy |
| `--lb-idle SECONDS` | how long the load balancer keeps an idle connection to a server |
| `--probe PATH` | opens this path of the application twice, and leaves |
| `--json` | prints JSON instead of text |

`--unit`, `--manifest` and `--proxy` may be given several times. With a unit or manifest, the options are those of its
own command and environment; without one, those of the doctor's command line and environment.

Servers that are known: {servers}. The numbers of lastcall come from
an installed lastcall, those of {numbers} from `companions/drill/src/lastcall_doctor/others.toml`.
Of the rest, and where options are in a file of the server's own, only the deployment is judged.

In a manifest where no command names one, the containers without a command are judged: their images have one. In
Compose, those of them that have `build`, or the only one that it could be. Images of databases, queues and proxies are
known by their names, and never judged. A Dockerfile does not say who will run it, so no timer is judged there.

A file of another kind is refused (exit code 2), with what to do instead: a Procfile, a Caddyfile, Traefik's
configuration.

## JSON

`format` (1), `looked_at` (texts), `counts` (`error`, `warning`, `note`), and `findings`, the worst first: `id`,
`severity`, `where`, `text`, `fix` and `lines`, which are the lines to write. Ids, severities and fields are stable;
wording is not.
"""


def page() -> str:
    """Return the whole page as Markdown."""
    servers, numbers = ", ".join(sorted(SERVERS)), ", ".join(sorted(known_others()))
    parts = [_HEAD.format(servers=servers, numbers=numbers)]
    for group, introduction in GROUPS.items():
        parts.append(f"\n## {group}\n\n{introduction}\n\n")
        parts.append(_row(["finding", "severity", "made when", "what mends it"]) + "|---|---|---|---|\n")
        for name, entry in CATALOGUE.items():
            if entry.group == group:
                severities = ", ".join(one.value for one in entry.severities)
                parts.append(_row([f"`{name}`", severities, entry.found, entry.mend]))
    return "".join(parts)


def main(arguments: list[str]) -> None:
    """Write the page to the file named by the first argument, or to its path below the current directory."""
    Path(arguments[0] if arguments else PAGE).write_text(page(), encoding="utf-8")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    main(sys.argv[1:])

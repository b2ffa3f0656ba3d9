"""The reference page of options, made from the table: ``python -m lastcall.config.reference``.

Writes ``docs/reference/options.md`` (or the file named on the command line). A test compares the committed page with
:func:`page`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lastcall.config.options import GROUPS, OPTIONS, Option

PAGE: Final = Path("docs", "reference", "options.md")

_HEAD: Final = """\
<!-- Made by `python -m lastcall.config.reference` from src/lastcall/config/options.py. Do not edit. -->

# Options

`lastcall APP [options]` on the command line, `lastcall.run(app, …)` and `lastcall.Config(app, …)` in Python.
`APP` is `module:attribute`; it can also be set by `LASTCALL_APP`.

- **Precedence**: flag, then `LASTCALL_…` variable, then default. An empty variable counts as not set. The variables are
  read by the command only: a program says what it wants by keywords.
- **Times** are seconds, with decimals if you like. Where it makes sense, `none` is no limit; in Python that is `None`.
- **Sizes** are bytes. In text, `K`, `M` and `G` stand for 1024, 1024² and 1024³ bytes.
- **Switches** are `true` or `false` in a variable (`1`, `yes`, `on` and `0`, `no`, `off` are understood too).
- A value that cannot be used ends the command with exit code 2 and one line that says what was expected; several have
  a line each. In Python, `Config` raises `lastcall.base.errors.ConfigError`.
- A variable `LASTCALL_…` that no option has, and every `UVICORN_…`, gives a warning at the start.
- `--version` and `-h`, `--help` do what you expect.

Coming from uvicorn? [Each of its options and ours](uvicorn-options.md).
"""

_BINDS: Final = """\
| value of `bind` | listens on |
|---|---|
| `127.0.0.1:8000`, `localhost:8000` | this address, or the addresses of this name |
| `0.0.0.0:8000`, `[::]:8000` | every IPv4 interface, every IPv6 interface |
| `[::1]:0` | any free port of an IPv6 address |
| `unix:/run/app.sock` | a unix socket; mode 0666, or that of the socket file that is there already |
| `unix:/run/app.sock,mode=0660` | a unix socket with this mode |
| `fd://3` | a socket that the process has inherited |
"""


def page() -> str:
    """Return the whole page as Markdown."""
    parts = [_HEAD]
    for group, introduction in GROUPS.items():
        options = [option for option in OPTIONS.values() if option.group == group]
        later = any(option.only for option in options)
        parts.append(f"\n## {group}\n\n{introduction}\n\n")
        if group == "Listening":
            parts.append(_BINDS + "\n")
        columns = ["flag", "keyword", "variable", "default", *(["accepted"] if later else []), "meaning"]
        parts.append(_row(columns) + "|" + "---|" * len(columns) + "\n")
        parts.extend(_row(_cells(option, later=later)) for option in options)
    return "".join(parts)


def main(arguments: list[str]) -> None:
    """Write the page to the file named by the first argument, or to its place below the current directory."""
    Path(arguments[0] if arguments else PAGE).write_text(page(), encoding="utf-8")


def _cells(option: Option, *, later: bool) -> list[str]:
    flag = f"{' / '.join(option.flags)} {option.kind.metavar}".strip()
    accepted = [option.only.accepted if option.only else "any"] if later else []
    names = [f"`{flag}`", f"`{option.name}`", f"`{option.env}`"] if option.flags else ["", f"`{option.name}`", ""]
    return [*names, option.default_text, *accepted, option.help]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    main(sys.argv[1:])

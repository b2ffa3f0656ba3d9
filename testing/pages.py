"""The Markdown pages of the repository, taken apart.

What the tests take from a page:

- ` ```console ` blocks are run (``test_commands``): a line that begins with ``$ `` is a command, the lines under it are
  what it writes. ``^C`` is a Ctrl-C for the server that was started last, ``$ kill %1`` a SIGTERM; the server's exit is
  waited for if a line under it says "Stopped", or none says anything. Lines before the first command are more of that
  server's output. ``…`` in an expected line stands for anything. Where a command fails, ``$ echo $?`` has to follow.
- ` ```python ` and other blocks whose first line is ``# file: NAME`` are files in the directory where the commands run.
- ` ```sh ` blocks are for the reader only: they need root, Docker or a network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FILE_TITLE = re.compile(r"# file: (\S+)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the number of its first line."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Step:
    """A command, or ``^C``, or nothing (more output of the server), and the lines that are expected."""

    command: str
    expected: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """One page."""

    path: Path
    text: str = field(repr=False)

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def blocks(self) -> list[Block]:
        """The fenced blocks, in order."""
        found = re.finditer(r"^```(\w*)\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)
        return [Block(m[1], m[2], self.text.count("\n", 0, m.start(2)) + 1) for m in found]

    @cached_property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return re.sub(r"^```\w*\n.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)

    @property
    def files(self) -> dict[str, str]:
        """The sample files, by name."""
        return {title[1]: block.text for block in self.blocks if (title := FILE_TITLE.match(block.text))}

    @property
    def steps(self) -> list[Step]:
        """What the console blocks do, in order."""
        steps: list[Step] = []
        for block in self.blocks:
            if block.language == "console":
                for part in re.split(r"^(?=\$ |\^C$)", block.text, flags=re.MULTILINE):
                    if part:
                        first, *rest = part.splitlines()
                        if first.startswith("$ "):
                            steps.append(Step(first.removeprefix("$ "), tuple(rest)))
                        elif first == "^C":
                            steps.append(Step("^C", tuple(rest)))
                        else:
                            steps.append(Step("", (first, *rest)))
        return steps

    @property
    def anchors(self) -> set[str]:
        """The names of the headings, as GitHub makes them."""
        return {anchor(m[1]) for m in re.finditer(r"^#+ (.+)$", self.prose, re.MULTILINE)}

    @property
    def links(self) -> list[str]:
        """The targets of all links."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @property
    def code(self) -> list[str]:
        """What is set as code: in the text, and in blocks of commands."""
        lines = [
            line.removeprefix("$ ")
            for block in self.blocks
            if block.language in ("console", "sh")
            for line in block.text.splitlines()
            if block.language == "sh" or line.startswith("$ ")
        ]
        return re.findall(r"`([^`\n]+)`", self.prose) + lines

    def rows(self, *head: str) -> list[list[str]]:
        """The rows of all tables whose columns are called ``head``; cells are without Markdown's backslashes."""
        found: list[list[str]] = []
        inside = False
        for line in self.text.splitlines():
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if cells == list(head):
                inside = True
            elif not cells:
                inside = False
            elif inside and not set(line) <= set("|-"):
                found.append(cells)
        assert found, f"{self} has no table with the columns {head}"
        return found

    def section(self, heading: str) -> Page:
        """The part of the page under a heading of the second level."""
        match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert match is not None, f"{self} has no section {heading}"
        return Page(self.path, match[1])


def anchor(heading: str) -> str:
    """``Where the code differs`` -> ``where-the-code-differs``."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def page(name: str) -> Page:
    """The page at this path below the repository's root."""
    return Page(ROOT / name, (ROOT / name).read_text(encoding="utf-8"))


DOCUMENTATION = [page(str(path.relative_to(ROOT))) for path in sorted(DOCS.rglob("*.md"))]
OTHERS = [
    page(name)
    for name in (
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
        *("bench/README.md", "companions/drill/README.md", "companions/once/README.md"),
    )
]
PAGES = DOCUMENTATION + OTHERS

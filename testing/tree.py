"""The source tree as the layering tests see it: modules, packages, and the import rules from ``pyproject.toml``."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
SRC = PROJECT / "src"
ROOT = SRC / "lastcall"
SOURCES = (SRC, *sorted(PROJECT.glob("companions/*/src")))
"""Where the source trees of the distributions begin."""

PYTHON = sorted(ROOT.rglob("*.py"))
COMPILED = sorted(ROOT.rglob("*.pyx"))
DECLARATIONS = sorted(ROOT.rglob("*.pxd"))
COMPANIONS = sorted(path for source in SOURCES[1:] for path in source.rglob("*.py"))


def module_name(path: Path) -> str:
    """``src/lastcall/wire/http1.pyx`` -> ``lastcall.wire.http1``; a package has the name of its directory."""
    source = next(source for source in SOURCES if path.is_relative_to(source))
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """``lastcall.wire.http1`` -> ``wire``; the package itself is the empty string."""
    return module.split(".")[1] if "." in module else ""


@dataclass(frozen=True)
class Rules:
    """The import-linter contracts, for the files that import-linter cannot read."""

    layers: tuple[frozenset[str], ...]
    forbidden: frozenset[tuple[str, str]]

    @classmethod
    def load(cls) -> Rules:
        """From ``pyproject.toml``, so that the rule is written once."""
        tables = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
        layers: list[frozenset[str]] = []
        forbidden: set[tuple[str, str]] = set()
        for table in tables:
            if table["type"] == "layers":
                layers += [frozenset(re.findall(r"\w+", layer)) for layer in table["layers"]]
            else:
                sources, targets = table["source_modules"], table["forbidden_modules"]
                forbidden |= {
                    (package_of(source), package_of(target))
                    for source in sources
                    for target in targets
                    if source.startswith("lastcall.")
                }
        return cls(tuple(layers), frozenset(forbidden))

    def allow(self, importer: str, imported: str) -> bool:
        """Whether package ``importer`` may import package ``imported``: itself, or one that is strictly below it."""
        if importer == imported:
            return True
        if (importer, imported) in self.forbidden:
            return False
        above, below = self.level(importer), self.level(imported)
        return above is None or below is None or above < below

    def level(self, package: str) -> int | None:
        """0 is the top; None is a side package."""
        return next((number for number, packages in enumerate(self.layers) if package in packages), None)


_FROM = re.compile(r"^[ \t]*from[ \t]+(\.*[\w.]*)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n#]+)", re.MULTILINE)
_PLAIN = re.compile(r"^[ \t]*c?import[ \t]+([^\n#(]+)", re.MULTILINE)
_STRINGS = re.compile(r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'')


def cython_imports(source: str, package: str) -> set[str]:
    """Every module or name that Cython code imports, by ``import`` or ``cimport``, with absolute dotted names.

    ``package`` is the package that relative names start from.
    """
    source = _STRINGS.sub("", source).replace("\\\n", " ")
    names: set[str] = set()
    for base, what in _FROM.findall(source):
        dots = len(base) - len(base.lstrip("."))
        if dots:
            parents = package.split(".")[: len(package.split(".")) - dots + 1]
            base = ".".join([*parents, base.lstrip(".")]).rstrip(".")  # noqa: PLW2901
        names |= {f"{base}.{name}" for name in _names(re.sub(r"#.*", "", what.strip("()")))}
    for what in _PLAIN.findall(source):
        names |= set(_names(what))
    return names


def _names(text: str) -> Iterator[str]:
    for part in text.replace("\n", " ").split(","):
        if words := part.split():
            yield words[0]  # "name as other"


def python_imports(source: str, package: str) -> set[str]:
    """The same for a ``.py`` file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def imports_of(path: Path) -> set[str]:
    """Everything that a source file of ours imports."""
    name = module_name(path)
    package = name if path.name.startswith("__init__.") else name.rpartition(".")[0]
    read = python_imports if path.suffix == ".py" else cython_imports
    return read(path.read_text(), package)

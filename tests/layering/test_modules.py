"""What every module owes its reader: a docstring, a bounded length; and that the compiled ones really are compiled."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

import lastcall
import lastcall_once
from testing.tree import COMPANIONS, COMPILED, DECLARATIONS, PYTHON, ROOT, module_name

MODULES = sorted(
    name for path in PYTHON + COMPILED + COMPANIONS if not (name := module_name(path)).endswith(".__main__")
)
MOST_LINES = 600


@pytest.mark.parametrize("path", COMPILED, ids=module_name)
def test_compiled_modules_are_loaded_from_their_extension(path: Path) -> None:
    loaded = importlib.import_module(module_name(path)).__file__
    assert loaded is not None
    assert loaded.endswith(tuple(EXTENSION_SUFFIXES))
    assert not path.with_suffix(".py").exists(), "a .py twin would be imported where the extension is missing"
    assert path.with_suffix(".pyi").exists(), "mypy sees a compiled module only through its stub"


def test_no_extension_outlives_its_source() -> None:
    """A module that was renamed leaves its old extension behind, and imports of the old name would go on working."""
    built = {path.parent / path.name.partition(".")[0] for path in ROOT.rglob("*.so")}
    assert built - {path.with_suffix("") for path in COMPILED} == set()


def test_packages_say_in_one_sentence_what_they_are() -> None:
    packages = {path.parent / "__init__.py" for path in PYTHON + COMPILED + COMPANIONS}
    assert {path for path in packages if not path.exists()} == set()
    docstrings = {path.parent: ast.get_docstring(ast.parse(path.read_text())) or "" for path in packages}
    assert {package for package, text in docstrings.items() if not text.partition("\n")[0].endswith(".")} == set()


@pytest.mark.parametrize(
    "path", PYTHON + COMPILED + DECLARATIONS + COMPANIONS, ids=lambda path: f"{module_name(path)}{path.suffix}"
)
def test_modules_are_short_or_say_why_not(path: Path) -> None:
    lines = path.read_text().splitlines()
    excuse = any(line.startswith("#") and "length:" in line for line in lines[:10])
    assert len(lines) <= MOST_LINES or excuse, f"{len(lines)} lines: split it, or say why in a comment at its top"


def documented(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The public functions, classes, methods and properties that ``module`` itself defines."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            yield name, value
            for member in vars(value):
                kind = inspect.getattr_static(value, member)
                if not member.startswith("_") and (inspect.isroutine(kind) or isinstance(kind, property)):
                    yield f"{name}.{member}", getattr(value, member)
        elif inspect.isroutine(value):
            yield name, value


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented(name: str) -> None:
    """A method may inherit its docstring, which is why ruff's D102 is off and this test is here."""
    module = importlib.import_module(name)
    assert inspect.getdoc(module)
    assert [thing for thing, value in documented(module) if not inspect.getdoc(value)] == []


@pytest.mark.parametrize("package", [lastcall, lastcall_once], ids=lambda package: str(package.__name__))
def test_everything_exported_is_there(package: ModuleType) -> None:
    assert len(package.__all__) == len(set(package.__all__))
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


@pytest.mark.parametrize("package", ["lastcall", "lastcall_drill", "lastcall_once"])
def test_the_installed_version_is_this_one(package: str) -> None:
    written = importlib.import_module(f"{package}._version").__version__
    assert importlib.metadata.version(package.replace("_", "-")) == written

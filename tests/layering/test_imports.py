"""The order of the packages in Cython code, which import-linter cannot read, and what the pure packages may know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from testing.tree import (
    COMPANIONS,
    COMPILED,
    DECLARATIONS,
    PROJECT,
    PYTHON,
    Rules,
    cython_imports,
    imports_of,
    module_name,
    package_of,
    python_imports,
)

RULES = Rules.load()
# What would make a sans-IO package impure: sockets, clocks, loops, logs, processes, the environment.
IMPURE = {
    "asyncio",
    "cpython.time",
    "libc.time",
    "logging",
    "os",
    "posix",
    "random",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
}


def upward(path: Path) -> list[str]:
    """Imports of ``path`` that the order of the packages does not allow."""
    package = package_of(module_name(path))
    ours = (name for name in imports_of(path) if name.startswith("lastcall."))
    return sorted(name for name in ours if not RULES.allow(package, package_of(name)))


@pytest.mark.parametrize("path", COMPILED + DECLARATIONS, ids=lambda path: f"{module_name(path)}{path.suffix}")
def test_compiled_packages_import_downwards_only(path: Path) -> None:
    assert upward(path) == []


@pytest.mark.parametrize("package", ["wire", "drain"])
def test_pure_packages_know_no_io(package: str) -> None:
    files = [path for path in PYTHON + COMPILED + DECLARATIONS if package_of(module_name(path)) == package]
    assert files
    impure = {
        (module_name(path), name)
        for path in files
        for name in imports_of(path)
        if any(name == module or name.startswith(f"{module}.") for module in IMPURE)
    }
    assert impure == set()


def exits(source: str) -> list[int]:
    """Lines that call ``sys.exit`` or raise ``SystemExit``."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        call = node.exc if isinstance(node, ast.Raise) else node
        function = call.func if isinstance(call, ast.Call) else call
        if isinstance(node, ast.Raise | ast.Call) and ast.unparse(function or ast.Pass()) in ("sys.exit", "SystemExit"):
            lines.append(node.lineno)
    return lines


def test_only_cli_exits() -> None:
    found = [
        (module_name(path), line)
        for path in PYTHON + COMPANIONS
        if package_of(module_name(path)) not in ("cli", "gunicorn", "__main__")  # gunicorn: as its workers do
        for line in exits(path.read_text())
    ]
    assert found == []


def test_exits_are_found() -> None:
    assert exits("import sys\nsys.exit(1)") == [2]
    assert exits("def f():\n    raise SystemExit(3) from None") == [2, 2]
    assert exits("raise SystemExit") == [1]
    assert exits("try:\n    f()\nexcept SystemExit:\n    raise") == []


def test_tests_of_companions_and_what_is_shared_need_no_test_of_the_server() -> None:
    files = [*PROJECT.glob("companions/*/tests/**/*.py"), *PROJECT.glob("testing/**/*.py")]
    assert len(files) > 50
    found = {
        (path.relative_to(PROJECT).as_posix(), name)
        for path in files
        for name in python_imports(path.read_text(), "")
        if name.partition(".")[0] == "tests"
    }
    assert found == set()


def test_companions_do_not_share_tests() -> None:
    for one, other in (("once", "drill"), ("drill", "once")):
        for path in PROJECT.glob(f"companions/{one}/tests/**/*.py"):
            assert f"companions.{other}" not in path.read_text(), path


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("cli", "base", True),
        ("connection", "wire", True),
        ("wire", "wire", True),
        ("wire", "connection", False),
        ("wire", "drain", False),
        ("drain", "config", False),
        ("drain", "notice", False),
        ("notice", "drain", True),
        ("asgi", "notice", True),
        ("notice", "observe", False),
        ("net", "server", False),
        ("observe", "base", True),
        ("observe", "config", True),
        ("observe", "server", False),
        ("connection", "observe", False),
        ("server", "observe", True),
    ],
)
def test_the_order(importer: str, imported: str, allowed: bool) -> None:
    assert RULES.allow(importer, imported) is allowed


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cimport cython", {"cython"}),
        ("import time, lastcall.net.reactor as r", {"time", "lastcall.net.reactor"}),
        ("cimport lastcall.wire.http1 as h  # why", {"lastcall.wire.http1"}),
        ("from lastcall.net cimport reactor", {"lastcall.net.reactor"}),
        ("    from lastcall.net.reactor cimport A, B as C", {"lastcall.net.reactor.A", "lastcall.net.reactor.B"}),
        (
            "from lastcall.net.reactor cimport (\n    A,  # first\n    B,\n)",
            {"lastcall.net.reactor.A", "lastcall.net.reactor.B"},
        ),
        ("from lastcall.net.reactor cimport A, \\\n    B", {"lastcall.net.reactor.A", "lastcall.net.reactor.B"}),
        ("from . cimport http1", {"lastcall.wire.http1"}),
        ("from .buffer import Buffer", {"lastcall.wire.buffer.Buffer"}),
        ("from ..net.reactor cimport Reactor", {"lastcall.net.reactor.Reactor"}),
        ('"""\nimport socket\n"""', set()),
        ("# import socket\nimportant = 1", set()),
    ],
)
def test_cython_imports_are_found(line: str, expected: set[str]) -> None:
    assert cython_imports(f"{line}\n", "lastcall.wire") == expected

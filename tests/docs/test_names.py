"""What the pages name exists: options, variables, keywords, modules."""

from __future__ import annotations

import ast
import importlib
import re

import click
import pytest

from lastcall.cli.ctl import ctl
from lastcall.cli.migrate_granian import FLAGS as GRANIAN
from lastcall.cli.migrate_gunicorn import FLAGS as GUNICORN
from lastcall.cli.migrate_hypercorn import FLAGS as HYPERCORN
from lastcall.config.options import OPTIONS
from lastcall.supervisor.spawn import NUMBER
from lastcall_doctor.cli import doctor_command
from lastcall_drill.cli.main import drill_group
from lastcall_drill.process import MARK
from lastcall_once.cli.main import once
from testing.pages import PAGES, ROOT, Page, page


def flags_of(command: click.Command) -> set[str]:
    """The flags of a command, and of those under it."""
    found = {flag for param in command.params for flag in param.opts if flag.startswith("--")}
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            under = command.get_command(ctx, name)
            assert under is not None
            found |= flags_of(under)
    return found


FLAGS = {flag for option in OPTIONS.values() for flag in option.flags} | {"--help", "--version"} | flags_of(once)
FLAGS |= flags_of(doctor_command) | flags_of(drill_group) | flags_of(ctl)
VARIABLES = {option.env for option in OPTIONS.values() if option.env} | {"LASTCALL_APP", "LASTCALL_ONCE_STORE", MARK}
VARIABLES |= {NUMBER}
# Of other programs: curl, docker, mypy, timeout.
FOREIGN = {"--unix-socket", "--init", "--stop-timeout", "--strict", "--preserve-status", "--pwprompt", "--owner"}
FOREIGN |= {
    flag for flag in (*GUNICORN, *HYPERCORN, *GRANIAN) if flag.startswith("--")
}  # which lastcall migrate and the doctor know
FOREIGN |= {
    "--no-deps",
    "--wheel-dir",
    "--find-links",
    "--no-cache-dir",
    "--from",
    "--build-context",
}  # pip, docker build
PEERS = "uvicorn|granian|peregrine|h2corn|hypercorn|gunicorn|daphne"
NOT_OURS = {"bench/README.md", "CONTRIBUTING.md", "docs/reference/drill-cards-evidence.md"}
OURS = [one for one in PAGES if str(one) not in NOT_OURS]


@pytest.mark.parametrize("one", OURS, ids=str)
def test_every_option_that_is_named_exists(one: Page) -> None:
    for code in one.code:
        if re.match(rf"(bench/run\.py|(python -m )?({PEERS})) ", code):
            continue  # the benchmark's own, and a peer's command line in its tables and the drill's
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code))
        assert named <= FLAGS | FOREIGN, f"{one}: {code}"


@pytest.mark.parametrize("one", OURS, ids=str)
def test_every_variable_that_is_named_exists(one: Page) -> None:
    assert set(re.findall(r"\bLASTCALL_[A-Z_]*[A-Z]\b", one.text)) <= VARIABLES


NGINX = ("limit_conn", "limit_req")  # its modules, for what is its job


@pytest.mark.parametrize("one", OURS, ids=str)
def test_every_keyword_that_is_named_exists(one: Page) -> None:
    named = {word for code in one.code for word in re.findall(r"\b(?:timeout|limit)_[a-z_]+", code)}
    assert named <= set(OPTIONS) | {"limit_request_fields", "limit_request_field_size", *NGINX}  # of gunicorn


@pytest.mark.parametrize("one", OURS, ids=str)
def test_every_dotted_name_of_ours_exists(one: Page) -> None:
    for name in {name for code in one.code for name in re.findall(r"\blastcall(?:_[a-z]+)?(?:\.[a-zA-Z_]\w*)+", code)}:
        if name in ("lastcall.error", "lastcall.access", "lastcall.once", "lastcall.commands"):
            continue  # loggers, and the group of entry points
        first, *parts = name.split(".")
        found: object = importlib.import_module(first)
        for part in parts:
            try:
                found = getattr(found, part)
            except AttributeError:
                found = importlib.import_module(f"{getattr(found, '__name__', '')}.{part}")


@pytest.mark.parametrize("one", OURS, ids=str)
def test_every_file_of_the_source_that_is_named_exists(one: Page) -> None:
    parents = [ROOT / "src" / "lastcall", *ROOT.glob("companions/*/src")]
    packages = {path.name: path for parent in parents for path in parent.iterdir() if path.is_dir()}
    for code in one.code:
        first, _, rest = code.partition("/")
        if re.fullmatch(r"(\w+/)*\w+\.(py|pyx)", rest) and first in packages:
            assert (packages[first] / rest).is_file(), f"{one}: {code}"


@pytest.mark.parametrize("one", PAGES, ids=str)
def test_python_examples_are_python(one: Page) -> None:
    for block in one.blocks:
        if block.language == "python":
            ast.parse(block.text, filename=f"{one}:{block.line}")


@pytest.mark.parametrize("name", ["load", "idle", "startup", "accesslog", "soak"])
def test_the_performance_page_has_a_place_for_each_measurement(name: str) -> None:
    text = page("docs/explanation/performance.md").text
    assert len(re.findall(rf"<!-- bench:{name} -->\n(?s:.*?)<!-- /bench:{name} -->\n", text)) == 1

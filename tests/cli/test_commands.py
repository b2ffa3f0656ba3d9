"""Commands of other packages: found by their registration, and only where a word can be no application."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from lastcall.cli import commands
from lastcall.cli.commands import COMPANIONS, can_be_command, find_command, help_records
from lastcall.cli.main import main
from testing.process import ServerProcess

MODULE = """\
import click

print("the package is loaded")


@click.command
@click.argument("word")
def echo(word):
    click.echo(f"{click.get_current_context().command_path} {word}")


nothing = None
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed, and registers two commands."""
    (tmp_path / "a_package.py").write_text(MODULE)
    info = tmp_path / "a_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lastcall.commands]\necho = a_package:echo\nbroken = a_package:nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_package", raising=False)
    return tmp_path


def run(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return caught.value.code


@pytest.mark.usefixtures("package")
def test_a_command_is_told_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("echo", "hello") == 0
    assert capsys.readouterr().out == "the package is loaded\nlastcall echo hello\n"


@pytest.mark.usefixtures("package")
def test_a_command_has_to_be_one() -> None:
    with pytest.raises(TypeError, match=r"a_package:nothing.*lastcall broken"):
        main(["broken"])


@pytest.mark.usefixtures("package")
def test_help_lists_the_commands_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    told = capsys.readouterr().out
    assert "the package is loaded" not in told
    listed = told.partition("Commands:")[2]
    for name in ("echo", "broken", *COMPANIONS):
        assert f"\n  {name} " in listed
    assert "A command of the package a-package." in listed


@pytest.mark.parametrize("name", COMPANIONS)
def test_a_companion_that_is_missing_is_named_with_its_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "_registered", dict)
    assert run(name, "--any", "words") == 2
    package = COMPANIONS[name].package
    told = capsys.readouterr().err
    assert told == (
        f"Error: 'lastcall {name}' is in the package {package}, which is not installed: pip install {package} "
        f"(from a checkout: pip install ./{COMPANIONS[name].directory})\n"
    )
    assert (name, f"{COMPANIONS[name].purpose}  [not installed: pip install {package}]") in help_records()


def test_the_companions_are_where_they_are_said_to_be() -> None:
    for one in COMPANIONS.values():
        project = Path(__file__).parents[2] / one.directory / "pyproject.toml"
        assert f'name = "{one.package}"' in project.read_text()


def test_the_companions_are_registered() -> None:
    """As what they are, by the packages that this environment has."""
    for name in COMPANIONS:
        command = find_command(name)
        assert isinstance(command, click.Command)
        assert (name, COMPANIONS[name].purpose) in help_records()


@pytest.mark.slow
def test_a_word_that_no_package_knows_is_taken_for_an_application() -> None:
    assert find_command("nobody-has-this") is None
    with ServerProcess([], "nobody-has-this") as server:
        assert server.wait() == 2
    assert "APP: 'nobody-has-this' is not usable: expected module:attribute" in server.stderr


@pytest.mark.parametrize("word", ["echo:app", "a.b:app", "--port", "-h", "--help", "--version"])
def test_what_can_be_no_command(word: str) -> None:
    assert not can_be_command(word)


APP = """\
import sys


async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    slow = sorted(name for name in sys.modules if name.startswith("importlib.metadata"))
    print("slow modules:", slow, flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
"""


@pytest.mark.slow
def test_serving_reads_no_registration(tmp_path: Path) -> None:
    """They would cost a start some 60 ms."""
    (tmp_path / "once.py").write_text(APP)
    with ServerProcess([], "once:app", cwd=tmp_path) as server:
        server.wait_ready()
        assert server.stop() == 0
    assert "slow modules: []" in server.stdout


def test_the_command_without_words_reads_none() -> None:
    code = "import sys\nfrom lastcall.cli.main import main\ntry:\n    main([])\nexcept SystemExit:\n    pass\n"
    code += "print('importlib.metadata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"

"""Every command in a ``console`` block does what the page says. The conventions are in ``testing.pages``."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.console import Console
from testing.pages import DOCUMENTATION, PAGES, Page, Step, page

STORES = {
    "redis://127.0.0.1:6379/0": "redis_server",
    "postgresql://once:secret@127.0.0.1:5432/once": "postgres_server",
}
"""Addresses on the pages, and the fixtures of the servers that stand there."""

RUNNABLE = [one for one in [*DOCUMENTATION, page("README.md")] if one.steps]


@pytest.mark.slow
@pytest.mark.timeout(180)  # some pages start ten servers, with frameworks whose import takes seconds on a busy machine
@pytest.mark.parametrize("one", RUNNABLE, ids=str)
def test_the_commands_of_a_page_do_what_it_says(one: Page, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    steps = one.steps
    places = {place: request.getfixturevalue(name).url for place, name in STORES.items() if place in one.text}
    with Console(one, tmp_path, places) as console:
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            console.run(step)
            if console.failed and not (following and following.command == "echo $?"):
                pytest.fail(f"exit code {console.failed}: $ {step.command}")


def test_the_pages_that_teach_have_commands() -> None:
    names = {str(one) for one in RUNNABLE}
    assert {"README.md", "docs/tutorial/first-server.md", "docs/how-to/stop-cleanly.md"} <= names


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        Step("echo here", ("there",)),
        Step("printf 'one\\ntwo\\n'", ("two", "one")),
        Step("lastcall app:app", ("INFO:     lastcall running on http://127.0.0.1:1 (Press CTRL+C to quit)",)),
    ],
    ids=["other output", "another order", "another address"],
)
def test_a_page_that_is_wrong_is_found(step: Step, tmp_path: Path) -> None:
    sample = Page(Path("sample.md"), "```python\n# file: app.py\nasync def app(scope, receive, send): ...\n```\n")
    with Console(sample, tmp_path) as console:
        console.patience = 1.0
        with pytest.raises(AssertionError, match="expected: "):
            console.run(step)


def test_a_console_block_becomes_steps() -> None:
    text = "```console\nmore\n$ one\na\n\nb\n^C\nc\n$ echo $?\n3\n```\n"
    assert Page(Path("sample.md"), text).steps == [
        Step("", ("more",)),
        Step("one", ("a", "", "b")),
        Step("^C", ("c",)),
        Step("echo $?", ("3",)),
    ]


def test_no_page_shows_a_command_that_is_neither_run_nor_marked() -> None:
    known = {"console", "sh", "python", "ini", "yaml", "json", "mermaid", "dockerfile", "nginx", "haproxy"}
    known |= {"text", "toml", "sql"}
    assert {block.language for one in PAGES for block in one.blocks} <= known
    assert page("docs/index.md").steps == []

"""``lastcall once serve`` and ``lastcall once key``: what they say, and how they end."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from companions.once.tests.service.serving import LASTCALL, lastcall_once
from lastcall_once.cli.key import key_group
from lastcall_once.cli.serve import serve_command
from lastcall_once.cli.store import without_password
from lastcall_once.records import Policy
from lastcall_once.service.core import Settings
from lastcall_once.service.factory import make, settings_of
from testing.process import ServerProcess

KEY = re.compile(r"once_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")


def invoke(command: click.Command, *words: str, **environ: str) -> Result:
    return CliRunner().invoke(command, words, env={"LASTCALL_ONCE_STORE": None, **environ})


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/once.db"


def test_keys_from_their_making_to_their_end(store: str) -> None:
    made = invoke(key_group, "create", "--store", store, "--name", "the shop")
    assert made.exit_code == 0
    key = made.output.split()[-1]
    assert KEY.fullmatch(key)
    identity = key.split("_")[1]
    again = json.loads(
        invoke(key_group, "create", "--account", f"a{identity}", "--json", LASTCALL_ONCE_STORE=store).output
    )
    assert (again["account"], KEY.fullmatch(again["key"]) is not None) == (f"a{identity}", True)
    assert invoke(key_group, "revoke", key, "--store", store).exit_code == 0, "the whole key does, too"
    lines = [json.loads(line) for line in invoke(key_group, "ls", "--json", "--store", store).output.splitlines()]
    told = {line["id"]: (line["account"], line["name"], line["revoked_at"] is None) for line in lines}
    assert told == {identity: (f"a{identity}", "the shop", False), again["id"]: (f"a{identity}", "", True)}
    listed = invoke(key_group, "ls", "--store", store).output
    assert "the shop" in listed
    assert key.split("_", 2)[2] not in listed
    repeated = invoke(key_group, "revoke", identity, "--store", store)
    assert repeated.exit_code == 0, "it is revoked, and stays so"


def test_an_empty_list(store: str) -> None:
    assert invoke(key_group, "ls", "--store", store).output == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("revoke", "0" * 12), 1, "there is no key 000000000000"),
        (("revoke", "\x1b[2J"), 1, "there is no key \\x1b[2J"),
        (("create", "--account", "a b"), 2, "--account: expected 1 to 64 letters"),
        (("create", "--name", "a\nb"), 2, "--name: expected at most 255 printable"),
    ],
)
def test_orders_that_cannot_be_carried_out(store: str, words: tuple[str, ...], code: int, said: str) -> None:
    result = invoke(key_group, *words, "--store", store)
    assert result.exit_code == code
    assert said in result.stderr


UNUSABLE: Any = pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("mysql://me:secret@host/db", 2, "the scheme of this one is 'mysql'"),
        ("memory:", 2, "one process's own"),
        ("sqlite:///", 2, "sqlite:///once.db"),
        ("sqlite:////nowhere/at/all/once.db", 3, "/nowhere/at/all/once.db cannot be"),
        ("redis://:secret@127.0.0.1:1/0", 3, "cannot be used"),
    ],
)


@UNUSABLE
def test_stores_that_cannot_be_used(url: str, code: int, said: str) -> None:
    for command, words in ((serve_command, ("--port", "0")), (key_group, ("ls",))):
        result = invoke(command, *words, "--store", url)
        assert result.exit_code == code, result.output
        assert said in result.stderr
        assert "secret" not in result.output
        assert "running on" not in result.output


def test_options_of_the_service() -> None:
    assert settings_of({}) == Settings()
    told = {
        "LASTCALL_ONCE_LEASE": "5",
        "LASTCALL_ONCE_TTL": "6",
        "LASTCALL_ONCE_DEDUP_WINDOW": "7",
        "LASTCALL_ONCE_ON_FAILED": "retry",
    }
    assert settings_of(told) == Settings(lease=5, ttl=6, dedup_window=7, on_failed=Policy.RETRY)
    with pytest.raises(ValueError, match="forget"):
        settings_of({"LASTCALL_ONCE_ON_FAILED": "forget"})


def test_the_factory_reads_the_environment(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    monkeypatch.setenv("LASTCALL_ONCE_STORE", store)
    assert make().once.store.path == Path(store.removeprefix("sqlite:///"))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words",
    [
        ("--lease", "0"),
        ("--ttl", "long"),
        ("--on-failed", "x"),
        ("--factory",),
        ("--interface=wsgi",),
        ("--port", "0", "--lifespan", "off"),
        ("--app-dir", "."),
    ],
)
def test_wrong_options(words: tuple[str, ...], store: str) -> None:
    assert invoke(serve_command, "--store", store, *words).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("words", [("app:app",), ("--no-such-option",), ("--port", "x")])
def test_the_server_says_what_is_wrong_with_its_options(words: tuple[str, ...], store: str) -> None:
    assert words[0] in lastcall_once("serve", "--store", store, *words, code=2)


def test_without_the_server_serve_says_what_to_install(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lastcall_once.cli.serve.find_spec", lambda name: None)
    result = invoke(serve_command, "--store", store)
    assert result.exit_code == 2
    assert "serve runs on the server lastcall, which is not installed: pip install lastcall" in result.stderr
    assert not os.path.exists(store.removeprefix("sqlite:///")), "nothing was begun"


def test_help_says_what_is_its_own_and_what_the_servers() -> None:
    told = invoke(serve_command, "--help").output
    for flag in ("--store URL", "--dedup-window", "--port", "--health-path", "[OPTION OF LASTCALL]..."):
        assert flag in told
    assert told.index("--store") < told.index("--port")
    assert told.count("--store") == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///once.db", "sqlite:///once.db"),
        ("redis://me:pw@host:1/0", "redis://me:***@host:1/0"),
        ("redis://:pw@host/0", "redis://:***@host/0"),
        ("redis://host/0?db=1&password=pw", "redis://host/0?db=1&password=***"),
        ("postgresql://host/db?password=p%26w&sslmode=require", "postgresql://host/db?password=***&sslmode=require"),
        ("postgresql://me@host/db?sslPassword=pw", "postgresql://me@host/db?sslPassword=***"),
        ("postgresql://host/db?p%61ssword=pw", "postgresql://host/db?p%61ssword=***"),
        ("sqlite:///once.db?synchronous=full", "sqlite:///once.db?synchronous=full"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.slow
def test_a_start_without_keys_says_how_to_make_one(store: str) -> None:
    with ServerProcess(["--store", store, "--port", "0"], None, command=[*LASTCALL, "serve"]) as server:
        server.wait_ready()
        assert f"lastcall once key create --store {store}" in server.stderr
        assert server.stop() == 0
    assert os.path.exists(store.removeprefix("sqlite:///"))
    assert invoke(key_group, "create", "--store", store).exit_code == 0
    with ServerProcess(["--store", store, "--port", "0"], None, command=[*LASTCALL, "serve"]) as server:
        server.wait_ready()
        assert "key create" not in server.stderr
        assert server.stop() == 0

"""``lastcall once ls | show | release | purge``, over real stores."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import click
import pytest
from click.testing import CliRunner, Result

from lastcall.cli.main import main
from lastcall_once.answers import answer_of
from lastcall_once.cli import main as once_module
from lastcall_once.cli.main import once
from lastcall_once.cli.text import escaped, iso, legible, span
from lastcall_once.records import Attempt, Event, State
from lastcall_once.store import Store
from lastcall_once.stores import store_from_url
from testing.stores import Server, postgres_server, redis_server

__all__ = ["postgres_server", "redis_server"]

T = TypeVar("T")
ISO = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Place(NamedTuple):
    """A store that exists, and the beginning of the test's keys in it."""

    url: str
    prefix: str

    def run(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Await ``work`` on the store, as another process would."""

        async def run() -> T:
            store = store_from_url(self.url)
            await store.open()
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def key(self, name: str, **options: Any) -> None:
        """Make a record. Options: ``state``, ``result``, ``ttl``, ``lease`` (seconds), ``meta``, ``worker``."""
        state, result = options.pop("state", State.DONE), options.pop("result", None)
        given: dict[str, Any] = {"token": "t1", "lease": 60.0, "ttl": 3600.0} | options
        event = {State.DONE: Event.COMPLETE, State.FAILED: Event.FAIL, State.UNKNOWN: Event.ABANDON}.get(state)

        async def work(store: Store) -> None:
            await store.acquire(Attempt(key=self.prefix + name, **given))
            if event is not None:
                assert await store.finish(self.prefix + name, "t1", event, ttl=given["ttl"], result=result)

        self.run(work)

    def state(self, name: str) -> State | None:
        """The state of a key, None if there is none."""
        record = self.run(lambda store: store.get(self.prefix + name))
        return None if record is None else record.state

    def call(self, command: str, *arguments: str, **options: Any) -> Result:
        """Call a subcommand on this store."""
        return call(command, *arguments, "--store", self.url, **options)


@pytest.fixture(
    params=["sqlite", pytest.param("redis", marks=pytest.mark.slow), pytest.param("postgres", marks=pytest.mark.slow)]
)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/once.db"
    else:
        server: Server = request.getfixturevalue(f"{request.param}_server")
        url = server.url
        # Two seconds are an answer of a server that is well; on a busy machine it may take longer, and be as well.
        kind = type(store_from_url(url))
        monkeypatch.setitem(cast("dict[str, Any]", kind.__init__.__kwdefaults__), "timeout", 20.0)
    made = Place(url, f"{uuid.uuid4().hex}/")
    made.run(lambda store: store.get("made"))
    return made


@pytest.fixture
def file(tmp_path: Path) -> Place:
    """A store in a file, for what is the same with all of them."""
    made = Place(f"sqlite:///{tmp_path}/once.db", "")
    made.run(lambda store: store.get("made"))
    return made


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LASTCALL_ONCE_STORE", raising=False)


def call(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(once, arguments, prog_name="lastcall once", **options)


# -- on every store ----------------------------------------------------------------------------------------------------


def test_ls_lists_what_begins_with_the_prefix_in_order(place: Place) -> None:
    place.key("b", state=State.FAILED)
    place.key("a", state=State.LEASED, worker="w:1")
    place.key("other")
    result = place.call("ls", place.prefix)
    assert result.exit_code == 0
    head, *rows = [line.split() for line in result.stdout.splitlines()]
    assert head == ["STATE", "UPDATED", "AGE", "ENDS", "ATTEMPTS", "RUNS", "KEY"]
    assert [(row[0], row[-1]) for row in rows] == [
        ("leased", f"{place.prefix}a"),
        ("failed", f"{place.prefix}b"),
        ("done", f"{place.prefix}other"),
    ]
    assert all(ISO.fullmatch(row[1]) for row in rows)
    assert re.search(r" in (59 s|1 min) ", result.stdout.splitlines()[1]), "a lease's end"
    assert re.search(r" in (59 min|1 h) ", result.stdout.splitlines()[2]), "a record's end"


def test_ls_json_is_an_object_on_each_line(place: Place) -> None:
    place.key("a", meta='{"order":7}', result=b"x" * 3)
    place.key("b", state=State.LEASED, worker="w:1")
    lines = place.call("ls", place.prefix, "--json").stdout.splitlines()
    first, second = map(json.loads, lines)
    assert first | {"first_seen_at": "", "updated_at": "", "expires_at": ""} == {
        "key": f"{place.prefix}a",
        "state": "done",
        "first_seen_at": "",
        "updated_at": "",
        "lease_until": None,
        "expires_at": "",
        "attempts": 1,
        "executions": 1,
        "worker": "",
        "fingerprint": "",
        "meta": {"order": 7},
        "result_bytes": 3,
        "answer": None,
    }
    assert ISO.fullmatch(first["expires_at"])
    assert (second["state"], second["worker"], second["result_bytes"]) == ("leased", "w:1", None)
    assert ISO.fullmatch(second["lease_until"])


def test_ls_finds_a_state_and_stops_at_the_limit(place: Place) -> None:
    for number in range(6):
        place.key(f"{number}", state=State.UNKNOWN if number % 2 else State.DONE)
    found = place.call("ls", place.prefix, "--state", "unknown", "--json")
    assert [json.loads(line)["key"][-1] for line in found.stdout.splitlines()] == ["1", "3", "5"]
    assert found.stderr == ""
    found = place.call("ls", place.prefix, "--state", "unknown", "--limit", "2", "--json")
    assert len(found.stdout.splitlines()) == 2
    assert found.stderr == "There are more: --limit 2 was reached.\n"
    assert place.call("ls", place.prefix, "--limit", "6").stderr == ""


def test_show_tells_everything(place: Place) -> None:
    place.key("a", fingerprint="f1", meta='{"a":1}', worker="w:1", result=b'{"id":1}')
    result = place.call("show", f"{place.prefix}a")
    told = {line[:12].strip(): line[13:] for line in result.stdout.splitlines()}
    assert result.exit_code == 0
    assert told.pop("").strip() == '{"id":1}'
    for name in ("first seen", "updated", "expires"):
        assert ISO.match(told.pop(name))
    assert told == {
        "key": f"{place.prefix}a",
        "state": "done",
        "attempts": "1",
        "executions": "1",
        "worker": "w:1",
        "fingerprint": "f1",
        "meta": '{"a":1}',
        "result": "8 bytes",
    }
    shown = json.loads(place.call("show", f"{place.prefix}a", "--json").stdout)
    assert (shown["fingerprint"], shown["preview"], shown["result_bytes"]) == ("f1", '{"id":1}', 8)


def test_show_result_writes_the_bytes_as_they_are(place: Place) -> None:
    content = bytes(range(256)) * 5000
    place.key("a", result=content)
    assert place.call("show", f"{place.prefix}a", "--result").stdout_bytes == content


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.UNKNOWN])
def test_release_forgets_a_key_that_nobody_works_on(place: Place, state: State) -> None:
    place.key("a", state=state)
    result = place.call("release", f"{place.prefix}a")
    assert (result.exit_code, result.stdout) == (0, f"Released {place.prefix}a, which was {state.value}.\n")
    assert place.state("a") is None


def test_release_of_a_lease_needs_a_yes(place: Place) -> None:
    place.key("a", state=State.LEASED, worker="w:1")
    refused = place.call("release", f"{place.prefix}a")
    assert refused.exit_code == 1
    assert re.search(r"is running by w:1; its lease ends in .*: give --yes", refused.stderr)
    assert place.state("a") is State.LEASED
    done = place.call("release", f"{place.prefix}a", "--yes", "--json")
    assert json.loads(done.stdout) == {"key": f"{place.prefix}a", "released": True, "state": "leased"}
    assert place.state("a") is None


def test_release_leaves_a_lease_that_was_granted_since_it_looked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.key("a", state=State.UNKNOWN)
    looked = once_module._record

    def look(url: str, key: str) -> Any:
        record = looked(url, key)
        place.run(lambda store: store.acquire(Attempt(key=key, token="t2", lease=60.0, ttl=60.0)))
        return record

    monkeypatch.setattr(once_module, "_record", look)
    result = place.call("release", f"{place.prefix}a")
    assert (result.exit_code, place.state("a")) == (1, State.LEASED)
    assert "changed meanwhile" in result.stderr


@pytest.mark.parametrize("command", ["show", "release"])
def test_a_key_that_is_not_there(place: Place, command: str) -> None:
    result = place.call(command, f"{place.prefix}nothing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: there is no key {place.prefix}nothing\n"


def test_purge(place: Place) -> None:
    place.key("a", ttl=0.001)
    place.key("b")
    result = place.call("purge", "--json")
    assert (result.exit_code, list(json.loads(result.stdout))) == (0, ["purged"])
    assert place.call("purge").stdout == "Removed 0 expired keys.\n"
    assert (place.state("a"), place.state("b")) == (None, State.DONE)


# -- the same with all of them -----------------------------------------------------------------------------------------


def test_purge_says_how_many(file: Place) -> None:
    file.key("a", ttl=0.001)
    time.sleep(0.002)
    assert file.call("purge").stdout == "Removed 1 expired keys.\n"


def test_large_stores_are_read_in_pages(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counting:
        def __init__(self, store: Store) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def scan(self, prefix: str = "", *, after: str = "", limit: int = 100) -> Any:
            page = await self.store.scan(prefix, after=after, limit=limit)
            asked.append(len(page))
            return page

    async def fill(store: Store) -> None:
        for number in range(350):
            await store.acquire(Attempt(key=f"{number:03}", token="t", lease=0.0, ttl=60.0))

    file.run(fill)
    monkeypatch.setattr(once_module, "_store_at", lambda url: Counting(store_from_url(url)))
    result = file.call("ls", "--limit", "1000", "--json")
    assert [json.loads(line)["key"] for line in result.stdout.splitlines()] == [f"{n:03}" for n in range(350)]
    assert asked == [100, 250]
    assert once_module._next_size(0) == 2000
    assert once_module._next_size(1 << 20) == 15, "a page of results of 1 MiB stays below 16 MiB"


def test_what_a_terminal_would_obey_is_shown_escaped(file: Place) -> None:
    name = "a\x1b[31mred\n\u202eb\\"
    file.key(name, meta='{"x":"\x1b]0;title\x07"}', result=b"\x1b[2J\xff ok")
    for command in (["ls"], ["show", name]):
        text = file.call(*command).stdout
        assert r"a\x1b[31mred\n\u202eb\\" in text
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert r"\x1b[2J\xff ok" in file.call("show", name).stdout
    assert r'{"x":"\x1b]0;title\x07"}' in file.call("show", name).stdout
    assert json.loads(file.call("ls", "--json").stdout)["key"] == name
    missing = file.call("show", "\x1b[2J")
    assert missing.stderr == "Error: there is no key \\x1b[2J\n"


def test_an_answer_of_the_middleware_is_told_as_one(file: Place) -> None:
    answer = answer_of(201, [(b"Content-Type", b"application/json"), (b"x", b"y")], b'{"charged":5}')
    file.key("a", result=answer.encode())
    file.key("large", result=answer_of(200, [], None).encode())
    text = file.call("show", "a").stdout
    assert "answer       HTTP 201, application/json, 13 bytes\n" in text
    assert text.endswith('{"charged":5}\n')
    assert "HTTP 200, no type, a body that was too large to be kept" in file.call("show", "large").stdout
    assert json.loads(file.call("show", "a", "--json").stdout)["answer"] == {
        "status": 201,
        "content_type": "application/json",
        "body_bytes": 13,
        "kept": True,
    }


def test_a_long_result_is_cut(file: Place) -> None:
    file.key("a", result=b"x" * 10_000)
    assert file.call("show", "a").stdout.splitlines()[-1].strip() == "x" * 512 + " …"


@pytest.mark.parametrize("command", [["ls"], ["show", "a"], ["release", "a"], ["purge"]])
def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, command: list[str]) -> None:
    result = call(*command, "--store", f"sqlite:///{tmp_path}/none.db")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"Error: there is no file {tmp_path}/none.db: name another with --store\n"
    assert list(tmp_path.iterdir()) == []


def test_the_store_comes_from_the_variable_or_the_directory(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    file.key("a")
    path = Path(file.url.removeprefix("sqlite:///"))
    monkeypatch.chdir(path.parent)
    assert call("show", "a").exit_code == 0
    monkeypatch.setenv("LASTCALL_ONCE_STORE", f"sqlite:///{path.parent}/other.db")
    assert call("show", "a").exit_code == 3
    assert call("show", "a", "--store", file.url).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ls", "--store", "memory:"], "the memory store is one process's own"),
        (["ls", "--store", "mysql://user:secret@host/"], "the scheme of this one is 'mysql'"),
        (["ls", "--store", "redis://user:secret@host:x/"], "a Redis store's URL is"),
        (["ls", "--limit", "0"], "--limit"),
        (["ls", "--state", "absent"], "--state"),
        (["show", "a", "--json", "--result"], "give one of them"),
        (["show"], "Missing argument 'KEY'"),
        (["show", "\udcff"], "it is not valid UTF-8"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
def test_usage(arguments: list[str], told: str) -> None:
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert "secret" not in result.stderr


def test_a_result_that_is_not_there(file: Place) -> None:
    file.key("a", state=State.FAILED)
    result = file.call("show", "a", "--result")
    assert (result.exit_code, result.stdout_bytes) == (1, b"")
    assert result.stderr == "Error: the key a is failed, and has no result\n"


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1/0", "postgresql://u:secret@127.0.0.1:1/db"])
def test_a_store_that_is_down(url: str) -> None:
    result = call("ls", "--store", url)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("Error: ")
    assert "secret" not in result.stderr


def test_a_store_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    result = call("ls", "--store", f"sqlite:///{path}")
    assert (result.exit_code, "is the database of something else" in result.stderr) == (3, True)


def test_an_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lastcall_once.stores.redis", None)
    monkeypatch.setattr("lastcall_once.stores.import_module", _missing)
    result = call("ls", "--store", "redis://127.0.0.1/")
    assert (result.exit_code, "pip install 'lastcall-once[redis]'" in result.stderr) == (3, True)


def _missing(_name: str) -> Any:
    raise ModuleNotFoundError("No module named 'redis'", name="redis")


# -- the group ---------------------------------------------------------------------------------------------------------


def test_once_is_a_command_of_lastcall(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["once", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: lastcall once ")
    assert re.findall(r"^  (\w+)  ", text, re.MULTILINE) == ["key", "ls", "purge", "release", "serve", "show"]


def test_help_imports_nothing_that_it_only_names() -> None:
    code = (
        "import sys\nfrom lastcall_once.cli.main import once\n"
        "once.main(['--help'], standalone_mode=False)\n"
        "print(sorted(name for name in sys.modules if name.startswith(('lastcall_once.cli.', 'lastcall_once.stores'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['lastcall_once.cli.main', 'lastcall_once.cli.text']"


def test_the_commands_of_the_service_are_loaded_when_called(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (target, _) in once_module._LAZY.items():
        module = type(sys)(target.partition(":")[0])
        command = click.Command(name, callback=lambda name=name: click.echo(f"this is {name}"))
        setattr(module, target.partition(":")[2], command)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        assert call(name).output == f"this is {name}\n"


# -- a terminal --------------------------------------------------------------------------------------------------------


class Terminal:
    """A command whose terminal is ours."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "dumb"}
        )
        os.close(theirs)
        self.text = ""

    def answer(self, question: str, answer: str) -> int:
        """Wait for the question, give the answer, return the exit code."""
        self._read(lambda: question in self.text)
        if answer == "^C":
            again = signal.SIGINT  # Python does not see one that comes just before it begins to read
        else:
            again = None
            os.write(self._ours, answer.encode())
        self._read(lambda: False, again)
        return self.process.wait(10)

    def _read(self, enough: Callable[[], bool], again: signal.Signals | None = None) -> None:
        deadline = time.monotonic() + 15
        while not enough():
            if again is not None and "Aborted" not in self.text:
                self.process.send_signal(again)
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._ours], [], [], max(0.0, left if again is None else min(left, 1.0)))
            if not ready:
                assert left > 0, self.text
                continue
            try:
                data = os.read(self._ours, 4096)
            except OSError:  # it has ended
                return
            self.text += data.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(file: Place) -> Iterator[Terminal]:
    file.key("a", state=State.LEASED)
    command = [sys.executable, "-m", "lastcall", "once", "release", "a", "--store", file.url]
    made = Terminal(*command)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "code", "state", "told"),
    [
        ("y\n", 0, None, "Released a, which was leased."),
        ("\n", 1, State.LEASED, "nothing was released"),
        ("^C", 1, State.LEASED, "Aborted!"),
    ],
)
def test_a_terminal_is_asked(
    terminal: Terminal, file: Place, answer: str, code: int, state: State | None, told: str
) -> None:
    assert terminal.answer("Release it all the same? [y/N]", answer) == code
    assert (file.state("a"), told in terminal.text) == (state, True)


# -- the text ----------------------------------------------------------------------------------------------------------


def test_spans_and_moments() -> None:
    told = [span(s) for s in (0.4, 59.9, 60, 3599, 7200, 86400 * 3, -5)]
    assert told == ["in 0 s", "in 59 s", "in 1 min", "in 59 min", "in 2 h", "in 3 d", "5 s ago"]
    assert iso(0) == "1970-01-01T00:00:00Z"
    assert [iso(seconds) for seconds in (float("inf"), 1e15, float("nan"))] == [None] * 3


def test_escapes_can_be_told_apart() -> None:
    assert escaped("plain ü") == "plain ü"
    assert escaped("\\x1b") != escaped("\x1b")
    assert escaped("\udc41") == "\\udc41"
    assert legible('{"x":"\\u001b\x1b"}') == r'{"x":"\u001b\x1b"}'

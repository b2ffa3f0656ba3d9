"""The three wheels: each is built, installed alone into an empty environment, and does its work there.

``make wheels`` runs this, and ``make test-all`` and CI do: it needs the package index. Companions are built and
installed where no compiler can be found.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from testing.pages import page

pytestmark = [pytest.mark.wheels, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
PLACES = {"lastcall": ".", "lastcall-once": "companions/once", "lastcall-drill": "companions/drill"}
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "setup.py", "src")
LARGEST = {"lastcall": 9_000_000, "lastcall-once": 200_000, "lastcall-drill": 400_000}
"""Bytes. A wheel that has grown beyond that has something in it that nobody put there on purpose."""


class Environment:
    """A virtual environment without any package. ``compiler``: whether one can be found in it."""

    def __init__(self, directory: Path, *, compiler: bool = False) -> None:
        self.bin = directory / "bin"
        self.work = directory / "work"
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        self.work.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LASTCALL_", "PYTHON"))}
        path = os.environ["PATH"] if compiler else ""
        nowhere = {} if compiler else {"CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}
        self.env = {**kept, **nowhere, "PATH": f"{self.bin}{os.pathsep}{path}", "PYTHONUNBUFFERED": "1"}

    def run(self, *words: str | Path, code: int = 0, timeout: float = 600) -> str:
        """The output of a command of this environment, which has to end with ``code``."""
        command = [self.bin / words[0], *words[1:]]
        done = subprocess.run(
            command, cwd=self.work, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == code, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def install(self, *what: str | Path) -> None:
        self.run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)

    def build(self, source: Path, target: Path) -> Path:
        """Build the wheel of the project at ``source``, in the isolation that pip gives by itself."""
        self.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, source)
        (made,) = target.glob("*.whl")
        return made

    @contextlib.contextmanager
    def serving(self, *words: str | Path) -> Iterator[int]:
        """A server on a free port, whose number stands for ``PORT`` in ``words``; it has to stop well at SIGTERM."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        command = [str(word).replace("PORT", str(port)) for word in words]
        with (self.work / "server.log").open("w") as log:
            process = subprocess.Popen(
                [self.bin / command[0], *command[1:]], cwd=self.work, env=self.env, stdout=log, stderr=log
            )
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                ended = process.poll() is not None or time.monotonic() > deadline
                assert not ended, f"{command} takes no connection\n{(self.work / 'server.log').read_text()}"
                time.sleep(0.05)
            yield port
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) in (0, -signal.SIGTERM)  # uvicorn ends by the signal that it got
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def ask(port: int, method: str, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        body = response.read().decode()
        return response.status, body, {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three wheels by their names, built from copies of what they are made from; their sizes are printed."""
    made = {}
    print()
    for name, place in PLACES.items():
        directory = tmp_path_factory.mktemp(name)
        source = directory / "source"
        source.mkdir()
        for part in SOURCES:
            path = PROJECT / place / part
            if path.is_dir():
                shutil.copytree(path, source / part, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
            elif path.exists():
                shutil.copy(path, source / part)
        builder = Environment(directory / "environment", compiler=name == "lastcall")
        made[name] = builder.build(source, directory / "wheels")
        print(f"{made[name].name}: {made[name].stat().st_size:,} bytes".replace(",", " "))
    return made


def names_in(wheel: Path) -> set[str]:
    """What is at the top of a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" not in name}


def test_the_recipes_of_the_pages(wheels: dict[str, Path], tmp_path: Path) -> None:
    """The image's two stages, and the directory of wheels: what is built as they say is found as they say."""
    image = next(block.text for block in page("docs/how-to/stop-in-docker.md").blocks if block.language == "dockerfile")
    assert "RUN pip wheel --no-deps --wheel-dir /wheels /src/lastcall\n" in image, "as `wheels` builds it"
    copied = {
        Path(name).name
        for line in re.findall("^COPY --from=lastcall (.*) ", image, re.MULTILINE)
        for name in line.split()
    }
    assert copied == set(SOURCES)
    (installed,) = re.findall(r"^RUN (pip install .* --find-links .*)$", image, re.MULTILINE)
    directory = tmp_path / "wheels"
    directory.mkdir()
    for wheel in wheels.values():
        shutil.copy(wheel, directory)
    image_environment = Environment(tmp_path / "image")
    image_environment.run(*[word.replace("/wheels", str(directory)) for word in shlex.split(installed)])
    assert image_environment.run("lastcall", "--version").startswith("lastcall ")
    recipe = next(
        line
        for block in page("docs/how-to/install.md").blocks
        for line in block.text.splitlines()
        if "--find-links" in line
    )
    all_three = Environment(tmp_path / "all")
    all_three.run(
        *[word.replace("wheels", str(directory)) if word == "wheels" else word for word in shlex.split(recipe)]
    )
    assert "not installed" not in all_three.run("lastcall", "--help")


def test_each_has_what_is_its_own(wheels: dict[str, Path]) -> None:
    assert names_in(wheels["lastcall"]) == {"lastcall"}
    assert names_in(wheels["lastcall-once"]) == {"lastcall_once"}
    assert names_in(wheels["lastcall-drill"]) == {"lastcall_drill", "lastcall_doctor"}
    for name in ("lastcall-once", "lastcall-drill"):
        assert wheels[name].name.endswith("-py3-none-any.whl"), "pure Python"
    for name, wheel in wheels.items():
        assert wheel.stat().st_size < LARGEST[name], name
        with zipfile.ZipFile(wheel) as archive:
            files = set(archive.namelist())
        assert any(file.endswith("/licenses/LICENSE") for file in files), name
        package = PROJECT / PLACES[name] / "src"
        expected = {
            path.relative_to(package).as_posix()
            for suffix in ("*.py", "*.toml", "*.css", "*.js", "py.typed")
            for path in package.rglob(suffix)
        }
        assert expected - files == set(), name


ECHO = """\
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
"""


def test_the_server_alone(wheels: dict[str, Path], tmp_path: Path) -> None:
    alone = Environment(tmp_path / "environment")
    alone.install(wheels["lastcall"])
    assert re.match(r"lastcall \d+\.\d+\.\d+ with CPython", alone.run("lastcall", "--version"))
    (alone.work / "app.py").write_text(ECHO)
    with alone.serving("lastcall", "app:app", "--port", "PORT") as port:
        assert ask(port, "GET", "/")[:2] == (200, "hello")
    told = alone.run("lastcall", "drill", "--list", code=2)
    assert "in the package lastcall-drill, which is not installed: pip install lastcall-drill" in told
    assert "not installed: pip install lastcall-once" in " ".join(alone.run("lastcall", "--help").split())


CHARGES = """\
from lastcall_once import IdempotencyMiddleware

charges = 0


async def charge(scope, receive, send):
    global charges
    charges += 1
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"charge %d" % charges})


app = IdempotencyMiddleware(charge, "sqlite:///once.db")
"""


def test_once_alone_and_its_middleware_under_uvicorn(wheels: dict[str, Path], tmp_path: Path) -> None:
    alone = Environment(tmp_path / "environment")
    alone.install(wheels["lastcall-once"], "uvicorn")
    alone.run("python", "-c", "import lastcall", code=1)
    (alone.work / "app.py").write_text(CHARGES)
    key = {"Idempotency-Key": "order-1", "Authorization": "Bearer somebody"}
    with alone.serving("uvicorn", "app:app", "--lifespan", "off", "--port", "PORT") as port:
        first, again = (ask(port, "POST", "/charge", key) for _ in range(2))
        other = ask(port, "POST", "/charge", {**key, "Idempotency-Key": "order-2"})
    assert first[:2] == again[:2] == (201, "charge 1"), "the second was answered from the record"
    assert other[:2] == (201, "charge 2")
    listed = [json.loads(line) for line in alone.run("lastcall-once", "ls", "--json").splitlines()]
    assert [(one["state"], one["executions"], one["attempts"]) for one in listed] == [("done", 1, 2), ("done", 1, 1)]
    told = alone.run("lastcall-once", "serve", code=2)
    assert "serve runs on the server lastcall, which is not installed: pip install lastcall" in told


def test_the_drill_and_its_doctor_alone(wheels: dict[str, Path], tmp_path: Path) -> None:
    alone = Environment(tmp_path / "environment")
    alone.install(wheels["lastcall-drill"], "uvicorn")
    alone.run("python", "-c", "import lastcall", code=1)
    assert "exit-idle" in alone.run("lastcall-drill", "--list")
    command = "uvicorn {app} --port {port} --timeout-graceful-shutdown {grace}"
    told = alone.run("lastcall-drill", "--server", command, "--scenario", "exit-idle", "--json", "found.json")
    found = json.loads((alone.work / "found.json").read_text())
    assert [(one["scenario"], one["verdict"]) for one in found["results"]] == [("exit-idle", "pass")], told
    assert "not installed beside the drill" in alone.run("lastcall-drill", "--scenario", "exit-idle", code=3)
    assert "uvicorn-451" in alone.run("lastcall-drill", "cards")
    (alone.work / "app.service").write_text("[Service]\nExecStart=uvicorn app:app\nRestart=always\n")
    assert "error stop-timeout: app.service" in alone.run("lastcall-doctor", "--unit", "app.service", code=1)


def test_the_extras_of_the_server_bring_the_others(wheels: dict[str, Path], tmp_path: Path) -> None:
    together = Environment(tmp_path / "environment")
    links = [word for wheel in wheels.values() for word in ("--find-links", wheel.parent)]
    together.install(*links, "lastcall[once,drill]")
    assert together.run("lastcall", "once", "--help").startswith("Usage: lastcall once ")
    assert "exit-idle" in together.run("lastcall", "drill", "--list")
    assert "No findings" in together.run("lastcall", "doctor")
    assert "not installed" not in together.run("lastcall", "--help")
    with together.serving("lastcall", "once", "serve", "--port", "PORT") as port:
        assert ask(port, "GET", "/openapi.json")[0] == 200

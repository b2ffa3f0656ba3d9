"""``lastcall.run()`` and what ``import lastcall`` brings."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lastcall
from lastcall.base.errors import LastcallError, StartupError
from lastcall.cli.run import collector_waits
from lastcall.config import Config


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that would have been served. An application that is an int is the exit code."""
    served: list[Config] = []

    def run_process(config: Config, *, tell: Callable[[LastcallError], int], final: bool) -> int:
        assert not final, "the program goes on after run()"
        served.append(config)
        if isinstance(config.app, LastcallError):
            return tell(config.app)
        if isinstance(config.app, Exception):
            raise config.app
        return config.app if isinstance(config.app, int) else 0

    process = ModuleType("lastcall.server.process")
    process.run_process = run_process  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lastcall.server", ModuleType("lastcall.server"))
    monkeypatch.setitem(sys.modules, "lastcall.server.process", process)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    return served


def run(app: Any, **keywords: Any) -> None:
    lastcall.run(app, **keywords)


def test_run_returns_after_a_stop_as_asked(configs: list[Config]) -> None:
    run("main:app", port=1, timeout_graceful_shutdown=None)
    assert len(configs) == 1
    assert (configs[0].app, configs[0].port) == ("main:app", 1)
    assert configs[0].options.app.app_dir is None


def test_run_raises_system_exit_with_any_other_code(configs: list[Config]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(4)
    assert caught.value.code == 4
    assert len(configs) == 1


def test_a_wrong_option_is_one_line_and_exit_code_2(configs: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("main:app", prot=1)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    expected = "Error: prot: 1 is not usable: expected the name of an option (did you mean 'port'?)\n"
    assert (captured.out, captured.err) == ("", expected)
    assert configs == []


def test_a_failed_start_is_told_and_exit_code_3(configs: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(StartupError("importing 'main' failed:\n  some traceback"))
    assert caught.value.code == 3
    assert capsys.readouterr().err == "Error: importing 'main' failed:\n  some traceback\n"
    assert len(configs) == 1


def test_an_unexpected_error_is_not_hidden(configs: list[Config]) -> None:
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())
    assert len(configs) == 1


def test_nobody_to_tell_is_no_error(configs: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as caught:
        run("main:app", port=-1)
    assert caught.value.code == 2


def test_a_programs_objects_are_not_frozen_before_the_server_is_ready(configs: list[Config]) -> None:
    run("main:app")
    assert (len(configs), gc.get_freeze_count(), gc.isenabled()) == (1, 0, True)


@pytest.fixture
def collector() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_waits_and_is_then_as_it_was(enabled: bool) -> None:
    if not enabled:
        gc.disable()
    with suppress(KeyboardInterrupt), collector_waits(freeze=False):
        assert not gc.isenabled()
        raise KeyboardInterrupt
    assert (gc.isenabled(), gc.get_freeze_count()) == (enabled, 0)
    with collector_waits(freeze=True):
        assert not gc.isenabled()
    assert gc.isenabled() is enabled
    assert gc.get_freeze_count() > 0


def test_the_package_has_what_it_names() -> None:
    assert lastcall.Config is Config
    assert issubclass(lastcall.ClientDisconnected, OSError)
    assert set(lastcall.__all__) <= set(dir(lastcall))
    with pytest.raises(AttributeError, match="nothing"):
        lastcall.nothing  # noqa: B018


@pytest.mark.slow
def test_importing_the_package_imports_nothing_more() -> None:
    script = "import sys, lastcall; print([m for m in ('asyncio', 'click', 'logging', 'ssl') if m in sys.modules])"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {script}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert result.stdout.strip() == "[]"


def test_the_directory_comes_first(configs: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / ".env").touch()
    run("main:app", chdir=str(tmp_path), env_file=".env")
    assert os.getcwd() == str(tmp_path.resolve())
    assert configs[0].options.process.chdir == str(tmp_path)

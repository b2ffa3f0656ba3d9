"""What one process gives to another, so that it makes the same configuration."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from lastcall.base.errors import ConfigError
from lastcall.config import Config
from lastcall.config.options import OPTIONS
from lastcall.config.resolve import Given


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


def again(config: Config, **environ: str) -> Config:
    """The same, by way of a pickle."""
    return Config.from_origin(pickle.loads(pickle.dumps(config.origin)), environ)


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"port": 81, "headers": [("a", "b")], "timeout_keep_alive": None, "log_config": None},
        {"workers": 3, "smoke": ["/health=204"], "canary_share": 0.1, "umask": 0o27},
        {"reload": True, "reload_dirs": ["src"], "limit_worker_rss": "1G"},
    ],
)
def test_of_keywords(keywords: dict[str, Any]) -> None:
    config = Config("main:app", **keywords)
    made = again(config)
    assert made.options == config.options
    assert made.warnings == config.warnings
    assert repr(made) == repr(config)


def test_of_a_command_line() -> None:
    flags = {"port": Given("81", "--port"), "bind": Given(("a:1",), "--bind")}
    with pytest.raises(ConfigError):
        Config.from_command("main:app", flags, {})
    del flags["port"]
    config = Config.from_command("main:app", flags, {"LASTCALL_WORKERS": "2"})
    made = again(config)
    assert made.options == config.options
    assert made.options.app.app_dir == OPTIONS["app_dir"].command_default, "the command's defaults hold"
    assert (made.workers, dict(made.origin.given)["workers"].spelled) == (2, "LASTCALL_WORKERS")


def test_variables_of_the_command_were_read_once() -> None:
    """They are in the origin: what the process's environment has become since does not change the configuration."""
    assert again(Config.from_command("main:app", {}, {"LASTCALL_PORT": "81"}), LASTCALL_PORT="82").port == 81


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.touch()
    config = Config("main:app", env_file=file)
    assert again(config).options == config.options
    os.unlink(file)
    with pytest.raises(ConfigError) as caught:
        again(config)
    assert caught.value.option == "env_file"

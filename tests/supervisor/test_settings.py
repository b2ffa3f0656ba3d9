"""A configuration as text, for another process."""

from __future__ import annotations

import asyncio
import base64
import pickle
import sys
import types
from typing import Any

import pytest

from lastcall.base.errors import ConfigError
from lastcall.config import Config
from lastcall.config.resolve import Given
from lastcall.supervisor.settings import pack


def again(config: Config) -> Config:
    return Config.from_origin(pickle.loads(base64.b64decode(pack(config))), {})


def test_another_process_has_the_same_configuration() -> None:
    config = Config("app:app", port=0, headers=[("X-A", "b")], drain_close=["/events/*"], workers=2, loop="asyncio")
    assert again(config).options == config.options


def test_that_of_a_command_line_too() -> None:
    given = {"port": Given("8123", "--port"), "smoke": Given(("/ready", "/docs=301"), "--smoke")}
    config = Config.from_command("app:app", given, {"LASTCALL_WORKERS": "3"})
    found = again(config)
    assert found.options == config.options
    assert found.options.workers.count == 3


def test_what_cannot_be_had_there_is_named_all_of_it() -> None:
    def loop() -> asyncio.AbstractEventLoop:  # has no name that a module has
        return asyncio.new_event_loop()

    with pytest.raises(ConfigError) as caught:
        pack(Config("app:app", loop=loop, log_config={"stream": sys.stdout}, workers=2))
    assert [error.option for error in caught.value.errors] == ["loop", "log_config"]


@pytest.mark.parametrize("kind", ["function", "class", "instance"])
def test_what_the_script_defines_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # It could be written: pickle finds it in __main__, which is another module in a worker.
    main = types.ModuleType("__main__")
    exec("def make(): ...\nclass Make:\n    def __call__(self): ...", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    loop: Any = {"function": main.make, "class": main.Make, "instance": main.Make()}[kind]
    with pytest.raises(ConfigError, match="loop"):
        pack(Config("app:app", loop=loop, workers=2))

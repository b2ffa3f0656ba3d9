"""The configuration as text that another process can make the same configuration of: a pickle, in base64.

Only a parent's own workers and its successor read it, over a socket that nobody else has.
"""

from __future__ import annotations

import base64
import io
import pickle
from types import FunctionType
from typing import TYPE_CHECKING, Any

from lastcall.base.errors import ConfigError

if TYPE_CHECKING:
    from lastcall.config import Config

EXPECTED = "something that another process can have too (text, numbers, what a module has by a name): a worker needs it"


def pack(config: Config) -> str:
    """The source of ``config``, for ``channel.messages.Boot``.

    Raises ConfigError that names each option whose value cannot be had in another process: a lambda, an open file, what
    is defined in the script that was run (``__main__`` is another module in a worker).
    """
    wrong = []
    for _, given in config.origin.given:
        try:
            _dumps(given.raw)
        except Exception as exc:  # whatever a __reduce__ of somebody's raises
            said = " ".join(str(exc).split())
            wrong.append(ConfigError(given.spelled, given.raw, f"{EXPECTED} ({said or type(exc).__name__})"))
    if wrong:
        raise ConfigError.together(wrong)
    return base64.b64encode(_dumps(config.origin)).decode()


class _Pickler(pickle.Pickler):
    """Refuses what could be written and not be read."""

    def reducer_override(self, obj: Any) -> Any:
        """Called for functions and classes, those of instances too."""
        if isinstance(obj, FunctionType | type) and obj.__module__ == "__main__":
            raise pickle.PicklingError(f"{obj.__qualname__} is defined in the script that was run")
        return NotImplemented


def _dumps(value: object) -> bytes:
    written = io.BytesIO()
    _Pickler(written, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return written.getvalue()

"""``--chdir``: the working directory, before anything else is looked for."""

from __future__ import annotations

import os

from lastcall.base.errors import ConfigError
from lastcall.config.kinds import UnusableValueError
from lastcall.config.options import OPTIONS


def enter_directory(value: object, spelled: str) -> str:
    """Go to the directory that ``spelled`` (a flag, variable or keyword) names; return its absolute path.

    That path keeps symbolic links as they are: who enters it once more, after a deployment has turned the link, is in
    the new place. The relative paths of all other options are meant from here, so this comes before they are read.

    Raises ConfigError where it cannot be entered.
    """
    try:
        path = str(OPTIONS["chdir"].kind.read(value))
    except UnusableValueError as error:
        raise ConfigError(spelled, value, error.expected) from None
    try:
        path = os.path.join(os.getcwd(), path)
        os.chdir(path)
    except OSError as error:
        raise ConfigError(spelled, value, f"a directory that can be entered ({error.strerror})") from None
    return path

"""``--chdir``: the working directory, before anything else is looked for."""

from __future__ import annotations

import os

from lastcall.base.errors import ConfigError
from lastcall.config.kinds import UnusableValueError
from lastcall.config.options import OPTIONS


def _here() -> str:
    """The working directory, by the name under which it was entered if the shell has told that (pwd -L of POSIX)."""
    logical = os.environ.get("PWD", "")
    try:
        if os.path.isabs(logical) and os.path.samefile(logical, "."):
            return logical
        return os.getcwd()
    except OSError:
        return ""  # it is gone


_started_in = _here()


def started_in() -> str | None:
    """The directory in which this process was started, for another one like it; None if that is not known."""
    return _started_in or None


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

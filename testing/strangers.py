"""A Python that other users can read, for tests that become one.

The one that runs the tests may stand in the home of root, which nobody else may enter. Then the test's process gets a
mount namespace of its own (unshare(1)), in which that directory holds nothing but the Python, and is open.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

_OPEN = """
hold=$(mktemp -d)
mount --bind "$1/$2" "$hold"
mount -t tmpfs -o mode=755 none "$1"
mkdir "$1/$2"
mount --bind "$hold" "$1/$2"
umount "$hold"
rmdir "$hold"
shift 2
exec "$@"
"""


@functools.cache
def for_strangers() -> tuple[str, ...]:
    """The words to be put before a command that becomes another user. Skips the test where there is no way."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    library = Path(os.__file__).resolve()
    closed = next((one for one in reversed(library.parents) if not one.stat().st_mode & 0o001), None)
    if closed is None:
        return ()
    prefix = ("unshare", "--mount", "sh", "-ec", _OPEN, "sh", str(closed), library.relative_to(closed).parts[0])
    try:
        subprocess.run([*prefix, sys.executable, "-c", ""], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"other users cannot read {closed}, where this Python is, and there is no way around it: {exc}")
    return prefix

"""Which responses are told to close when a stop begins, and which may finish: ``--drain-close``, ``--drain-finish``."""

from __future__ import annotations

from enum import IntEnum
from fnmatch import fnmatchcase


class Policy(IntEnum):
    """What a response does when its server stops. ``DEFAULT`` is *finish* for HTTP."""

    DEFAULT = 0
    FINISH = 1
    CLOSE = 2


class PolicyTable:
    """Globs on the decoded path, as ``fnmatch`` has them (``*`` crosses ``/``).

    The longer pattern wins; of two that are equally long, *close* does.
    """

    def __init__(self, close: tuple[str, ...] = (), finish: tuple[str, ...] = ()) -> None:
        rules = [(len(glob), Policy.CLOSE, glob) for glob in close]
        rules += [(len(glob), Policy.FINISH, glob) for glob in finish]
        self._rules = sorted(rules, reverse=True)

    def __len__(self) -> int:
        return len(self._rules)

    def policy(self, path: str) -> Policy:
        """The policy of the first rule that fits."""
        for _, policy, glob in self._rules:
            if fnmatchcase(path, glob):
                return policy
        return Policy.DEFAULT

"""What the Python API of ``once`` raises, besides :class:`lastcall_once.store.StoreError`.

OnceError
├── InFlight      somebody else is at it; carries when to ask again
├── Refused       its last end was a failure or is unknown, or the key was used for something else
├── NotReplayable it is done, and there is no result to give back
└── LeaseLost     somebody else has the key now
"""

from __future__ import annotations

from typing import ClassVar

from lastcall_once.records import Verdict


class OnceError(Exception):
    """Root of what is said about a key; ``key`` is the one."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


class InFlight(OnceError):
    """Somebody else holds the key's lease. ``retry_after`` is how long that lease lasts, in seconds."""

    def __init__(self, key: str, retry_after: float) -> None:
        super().__init__(f"the work of key {key!r} is running, for another {retry_after:.1f} s at least", key)
        self.retry_after = retry_after


class Refused(OnceError):
    """The work was not run, as its policy says, or because of another fingerprint. ``verdict`` says which."""

    _WHY: ClassVar = {
        Verdict.FAILED: "its last run failed, and on_failed is REFUSE",
        Verdict.UNKNOWN: "nobody knows how its last run ended, and on_unknown is REFUSE",
        Verdict.MISMATCH: "the key was used for something else",
    }

    def __init__(self, key: str, verdict: Verdict) -> None:
        super().__init__(f"the work of key {key!r} was refused: {self._WHY.get(verdict, verdict.value)}", key)
        self.verdict = verdict


class NotReplayable(OnceError):
    """The work is done, and its result was not stored: there was none, or it was no JSON."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the work of key {key!r} is done, but its result was not stored", key)


class LeaseLost(OnceError):
    """The lease ran out, or an operator took it away, and the key has another holder or is gone.

    The work has been run; what it came to was not stored, and somebody else may run it as well.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"the lease of key {key!r} was lost before its work ended: make the lease longer", key)

"""The one exception tree.

LastcallError
├── ConfigError                 an option's value cannot be used (exit code 2)
├── StartupError                the server could not become ready (exit code 3)
├── ProtocolError
│   ├── LocalProtocolError      our side, usually the application, broke the protocol
│   └── RemoteProtocolError     the peer broke it; carries the status to answer with
└── ClientDisconnected          (also an OSError) send() after the client has left

Only the package ``cli`` turns these into exit codes. Wording of messages is not API; types and attributes are.
"""

from __future__ import annotations

from collections.abc import Sequence

from lastcall.base.exit_code import ExitCode


class LastcallError(Exception):
    """Root of every exception that lastcall raises on purpose."""


class ConfigError(LastcallError):
    """An option has a value that cannot be used.

    ``option`` is the name as the user wrote it (``--port`` or ``port``), ``value`` what was given,
    ``expected`` a short phrase that says what would have been right. ``errors`` are all that were found at once, this
    one first; each is a ConfigError, and one line.
    """

    def __init__(self, option: str, value: object, expected: str, others: tuple[ConfigError, ...] = ()) -> None:
        self.option = option
        self.value = value
        self.expected = expected
        # A switch was given without a value, so "True" would be a word that nobody wrote.
        given = "" if value is True else f": {value!r}"
        self._others = others
        super().__init__("; ".join((f"{option}{given} is not usable: expected {expected}", *map(str, others))))

    @property
    def errors(self) -> tuple[ConfigError, ...]:
        """All that were found at once."""
        if not self._others:
            return (self,)
        return (ConfigError(self.option, self.value, self.expected), *self._others)

    @classmethod
    def together(cls, errors: Sequence[ConfigError]) -> ConfigError:
        """One exception for several."""
        first = errors[0]
        return cls(first.option, first.value, first.expected, tuple(errors[1:])) if len(errors) > 1 else first


class StartupError(LastcallError):
    """The server could not become ready: bind, import or ``lifespan.startup`` failed. ``exit_code`` is 3."""

    exit_code = ExitCode.STARTUP


class ProtocolError(LastcallError):
    """One of the two sides broke the protocol."""


class LocalProtocolError(ProtocolError):
    """Our side broke it: an application sent something that HTTP or ASGI does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer broke it. ``status`` is the HTTP status to answer with before the connection is closed."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ClientDisconnected(LastcallError, OSError):
    """``send()`` was called after the client had left (ASGI HTTP spec 2.4 and later: an OSError)."""

"""What a card says, as values; and which steps, observations and fields there are.

``docs/reference/drill-cards.md`` describes the same for those who write one. All times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final

from lastcall_drill.cards.conditions import Conditions
from lastcall_drill.cards.linear import Pattern
from lastcall_drill.record import Record

FORMAT: Final = 1
NONE_KNOWN: Final = "none known"


class Confidence(Enum):
    """How sure a line of a log shows this failure, and not something else."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Role(Enum):
    """What a run of the reproduction is to prove."""

    BROKEN = "broken"  # shows the failure
    STILL_BROKEN = "still-broken"  # shows it too: what looks like a fix, and is none
    FIXED = "fixed"  # does not show it
    LASTCALL = "lastcall"  # added by verify itself


class Signature(Record):
    """What a log shows of the failure: lines that match ``lines``, in this order, others may come between them.

    No line that matches one of ``without`` comes between the first and the last of them, and none that matches one of
    ``never_then`` comes behind, as long as the same process runs; with ``last`` no line at all does. ``conditions`` are
    about what is known besides the log.
    """

    lines: Sequence[Pattern]
    confidence: Confidence
    note: str = ""
    without: Sequence[Pattern] = ()
    never_then: Sequence[Pattern] = ()
    last: bool = False
    conditions: Conditions = Conditions()

    @property
    def text(self) -> str:
        """All of it in a line."""
        said = " … ".join(one.text for one in self.lines)
        if self.without:
            said += f", without {' or '.join(one.text for one in self.without)}"
        if self.never_then:
            said += f", and then never {' or '.join(one.text for one in self.never_then)}"
        if self.last:
            said += ", as the last line"
        return f"{said} ({self.conditions.words})" if self.conditions.asked else said


class Step(Record):
    """One step of a reproduction: the name of a row of ``STEPS``, and its fields."""

    do: str
    fields: Mapping[str, Any]


class Observation(Record):
    """Something that holds after the steps, or not: the name of a row of ``OBSERVATIONS``, and its fields."""

    see: str
    fields: Mapping[str, Any]


class Setup(Record):
    """What is run: the servers' releases, the options after the command, the application file, the Python.

    ``python`` None is the one that runs the drill. ``title`` says it in a few words.
    """

    role: Role
    title: str
    requirements: Sequence[str]
    options: Sequence[str]
    app: Path
    python: str | None = None


class Reproduction(Record):
    """How the failure is shown: what is done in every run, and what tells that it is there.

    The failure is shown if all of ``failure`` hold, and it is not if all of ``healthy`` do.
    """

    command: Sequence[str]
    deadline: float
    steps: Sequence[Step]
    failure: Sequence[Observation]
    healthy: Sequence[Observation]


class Fix(Record):
    """One way to mend it. ``changes`` is some of ``release``, ``options``, ``app`` and ``python``."""

    title: str
    changes: Sequence[str]
    how: str
    not_when: str


class Cause(Record):
    """What ends a server, or keeps it, and is not its own: the application, a supervisor, the kernel, a proxy."""

    id: str
    title: str
    signatures: Sequence[Signature]
    fixes: Sequence[Fix]
    sources: Sequence[str] = ()
    affected: str = ""
    fixed: str = ""
    begins: Pattern | None = None


class Lastcall(Record):
    """How lastcall runs the same steps: with ``options``, or not at all since it has no such feature."""

    options: Sequence[str] = ()
    unsupported: str = ""


class Card(Record):
    """A known failure. ``affected`` and ``fixed`` are for people; ``setups`` say which releases were really tried.

    ``fixes`` is empty where none is known.
    """

    id: str
    title: str
    summary: str
    server: str
    affected: str
    fixed: str
    signatures: Sequence[Signature]
    reproduction: Reproduction
    setups: Sequence[Setup]
    fixes: Sequence[Fix]
    lastcall: Lastcall
    sources: Sequence[str]
    file: Path
    begins: Pattern | None = None  # a line that every start of this server writes


class Field(Record):
    """A field of a step or an observation: its type, in words and as Python knows it, and its default.

    Without ``optional`` it has to be given.
    """

    expected: str
    types: tuple[type, ...]
    optional: bool = False
    default: Any = None
    choices: Sequence[str] = ()


class Row(Record):
    """One kind of step or observation: what it does or says, and its fields."""

    meaning: str
    fields: Mapping[str, Field]


_CLIENT: Final = Field("the name of a client", (str,))
_PATTERN: Final = Field("a pattern", (Pattern,))
_SECONDS: Final = Field("a number of seconds", (int, float))
_WITHIN: Final = Field("a number of seconds", (int, float), True, 5.0)
_PATH: Final = Field("a path such as /events", (str,), True, "/")
_SIGNAL: Final = Field("the name of a signal such as SIGTERM", (str,))

STEPS: Final[Mapping[str, Row]] = {
    "start": Row("Start the server and wait until it listens.", {"within": Field("seconds", (int, float), True, 20.0)}),
    "wait-output": Row("Wait for a line of the server's output.", {"pattern": _PATTERN, "within": _WITHIN}),
    "open": Row("Open a connection and send nothing.", {"client": _CLIENT}),
    "request": Row(
        "Send a request; opens the connection if there is none of this name.",
        {
            "client": _CLIENT,
            "path": _PATH,
            "method": Field("a method", (str,), True, "GET"),
            "body": Field("a text", (str,), True, ""),
        },
    ),
    "send": Row(
        "Send bytes as they are; `response = true` announces that they ask for a response.",
        {
            "client": _CLIENT,
            "text": Field("a text (\\r\\n has to be written)", (str,)),
            "response": Field("true or false", (bool,), True, False),
        },
    ),
    "websocket": Row(
        "Open a WebSocket and wait until it is accepted.", {"client": _CLIENT, "path": _PATH, "within": _WITHIN}
    ),
    "message": Row("Send a text message over a WebSocket.", {"client": _CLIENT, "text": Field("a text", (str,))}),
    "read-until": Row(
        "Read until a line of the body, or a message, matches; it is an error if none does.",
        {"client": _CLIENT, "pattern": _PATTERN, "within": _WITHIN},
    ),
    "wait-response": Row(
        "Wait for the end of the last response. That none comes is no error.", {"client": _CLIENT, "within": _WITHIN}
    ),
    "wait-close": Row(
        "Wait for the end of the connection. That none comes is no error.", {"client": _CLIENT, "within": _WITHIN}
    ),
    "signal": Row(
        "Send a signal to the server's first process, or to its process group as a terminal does.",
        {"signal": _SIGNAL, "to": Field("server or group", (str,), True, "server", ("server", "group"))},
    ),
    "sleep": Row("Do nothing for a while.", {"seconds": _SECONDS}),
    "wait-exit": Row("Wait for the server's exit. That it goes on is no error.", {"within": _SECONDS}),
    "close": Row("Close a connection from the client's side.", {"client": _CLIENT}),
}
"""What a reproduction can do, by name."""

OBSERVATIONS: Final[Mapping[str, Row]] = {
    "exit.within": Row("The server has exited within this time after the last signal.", {"seconds": _SECONDS}),
    "exit.not-within": Row("It has not.", {"seconds": _SECONDS}),
    "exit.code": Row("It has exited with this code.", {"code": Field("a number", (int,))}),
    "exit.signal": Row("It was ended by this signal.", {"signal": _SIGNAL}),
    "output.matches": Row("A line of the server's output matches.", {"pattern": _PATTERN}),
    "output.lacks": Row("No line does.", {"pattern": _PATTERN}),
    "output.order": Row(
        "Lines match these patterns, and the first matches of them come in this order.",
        {"patterns": Field("a list of patterns", (tuple,))},
    ),
    "client.saw": Row("A line of what the client has read matches.", {"client": _CLIENT, "pattern": _PATTERN}),
    "client.lacks": Row("No line does.", {"client": _CLIENT, "pattern": _PATTERN}),
    "client.status": Row(
        "The last response has this status; 0 means that none came.",
        {"client": _CLIENT, "status": Field("a number", (int,))},
    ),
    "client.complete": Row("The last response is complete.", {"client": _CLIENT}),
    "client.incomplete": Row("The last response is not complete.", {"client": _CLIENT}),
    "client.ended": Row(
        "How the connection ended: closed in order (fin), reset (rst), or not at all (open).",
        {"client": _CLIENT, "how": Field("fin, rst or open", (str,), choices=("fin", "rst", "open"))},
    ),
    "websocket.close-frame": Row(
        "The server has sent a Close frame, with this code if one is given.",
        {"client": _CLIENT, "code": Field("a number", (int,), True, None)},
    ),
    "websocket.no-close-frame": Row("The server has sent no Close frame.", {"client": _CLIENT}),
}
"""What can be seen in the end, by name."""


def described(name: str, fields: Mapping[str, Any]) -> str:
    """A step or an observation in one line: ``exit.within seconds=8``."""
    words = [f"{field}={_value(value)}" for field, value in fields.items() if value is not None]
    return " ".join((name, *words))


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    text = getattr(value, "text", value)
    return repr(text) if isinstance(text, str) and not text.isalnum() else str(text)

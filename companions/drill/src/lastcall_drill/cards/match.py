"""Which known failures does a log show? Reads logs of any size as a stream, with a bounded amount of memory.

Lines are cut after ``LONGEST_LINE`` bytes, and of each signature the first ``KEPT`` lines are kept; the rest is
counted. Each block of the log is first searched for the literals of all signatures, and only a block that has one is
looked at line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from lastcall_drill.cards.format import Card, Signature
from lastcall_drill.record import Record

BLOCK: Final = 1 << 18
LONGEST_LINE: Final = 1 << 13
"""Bytes of a line that are looked at."""

KEPT: Final = 20
_SHOWN: Final = 300  # characters of a line that are kept


class Log(Protocol):
    """What is read: a binary file, or a pipe."""

    def read(self, size: int, /) -> bytes | None:
        """Some bytes; none at the end."""


class Match(Record):
    """A line that shows a failure: its number, from 1, its text, cut, and what it matched."""

    line: int
    text: str
    card: Card
    signature: Signature


class Found(Record):
    """What a log shows of one signature: how often, where first and last, and the first ``KEPT`` of them."""

    card: Card
    signature: Signature
    count: int
    first: int
    last: int
    matches: Sequence[Match]


class Summary(Record):
    """All that was found, in the order of the first lines, and how many lines were read."""

    lines: int
    found: Sequence[Found]


class _Tally:
    def __init__(self, card: Card, signature: Signature) -> None:
        self.card = card
        self.signature = signature
        self.literal = signature.pattern.literal.encode()
        self.count = 0
        self.last = 0
        self.matches: list[Match] = []

    def look(self, number: int, raw: bytes, tell: Callable[[Match], None]) -> None:
        """Look at one line."""
        if self.literal not in raw:
            return
        text = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not self.signature.pattern.found_in(text):
            return
        self.count += 1
        self.last = number
        if len(self.matches) < KEPT:
            match = Match(number, text.strip()[:_SHOWN], self.card, self.signature)
            self.matches.append(match)
            tell(match)


def scan(log: Log, cards: Sequence[Card], *, tell: Callable[[Match], None] | None = None) -> Summary:
    """Read a log to its end and say what it shows.

    ``tell`` is called at once for each match that is kept, so that a log which still grows can be followed. Raises
    OSError as reading does.
    """
    say = tell or (lambda _match: None)
    tallies = [_Tally(card, signature) for card in cards for signature in card.signatures]
    number = 0
    for block in _blocks(log):
        candidates = [one for one in tallies if one.literal in block]
        if candidates:
            for line in _lines(block):
                number += 1
                for one in candidates:
                    one.look(number, line, say)
        else:
            number += block.count(b"\n") + (not block.endswith(b"\n"))
    found = [
        Found(one.card, one.signature, one.count, one.matches[0].line, one.last, one.matches)
        for one in tallies
        if one.count
    ]
    return Summary(number, sorted(found, key=lambda one: one.first))


def _blocks(log: Log) -> Iterator[bytes]:
    """Whole lines, some at once, each line cut after ``LONGEST_LINE`` bytes."""
    read = getattr(log, "read1", log.read)  # what is there, of a pipe, rather than a full block
    rest = b""
    skipping = False
    while True:
        data = read(BLOCK)
        if not data:
            break
        if skipping:  # behind the part of a long line that was kept
            _, newline, data = data.partition(b"\n")
            if not newline:
                continue
            skipping = False
            yield rest + b"\n"
            rest = b""
        data = rest + data
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            yield whole + newline
        if len(rest) > LONGEST_LINE:
            rest = rest[:LONGEST_LINE]
            skipping = True
    if rest:
        yield rest


def _lines(block: bytes) -> Iterable[bytes]:
    # Only \n ends a line: numbers are to be those that an editor or grep shows.
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return (line[:LONGEST_LINE] for line in lines)


def to_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain JSON values."""
    return {
        "format": 1,
        "lines": summary.lines,
        "found": [
            {
                "card": one.card.id,
                "title": one.card.title,
                "pattern": one.signature.pattern.text,
                "confidence": one.signature.confidence.value,
                "note": one.signature.note,
                "count": one.count,
                "first_line": one.first,
                "last_line": one.last,
                "matches": [{"line": match.line, "text": match.text} for match in one.matches],
                "affected": one.card.affected,
                "fixed": one.card.fixed,
                "fixes": [
                    {"title": fix.title, "changes": list(fix.changes), "how": fix.how, "not_when": fix.not_when}
                    for fix in one.card.fixes
                ],
            }
            for one in summary.found
        ],
    }

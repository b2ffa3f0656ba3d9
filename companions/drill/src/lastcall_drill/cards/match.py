"""Which known failures does a log show? Reads logs of any size as a stream, with a bounded amount of memory.

Lines are cut after ``LONGEST_LINE`` bytes, and of each signature the first ``KEPT`` matches are kept; the rest is
counted. Each block of the log is first searched for the literals of all signatures, and only a block that has one is
looked at line by line.

A signature that says what must *not* follow is decided where the process ends: where the next one begins, or the log
ends. One that asks for a release, or for how the process ended, matches only where that is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from lastcall_drill.cards.conditions import HINTS, Facts
from lastcall_drill.cards.format import Card, Cause, Signature
from lastcall_drill.cards.linear import Pattern
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


Known = Card | Cause


class Match(Record):
    """A line that shows a failure, of a sequence the last: its number, from 1, its text, cut, and what it matched."""

    line: int
    text: str
    card: Known
    signature: Signature


class Found(Record):
    """What a log shows of one signature: how often, where first and last, and the first ``KEPT`` of them."""

    card: Known
    signature: Signature
    count: int
    first: int
    last: int
    matches: Sequence[Match]


class Summary(Record):
    """All that was found, in the order of the first lines, and how many lines were read.

    ``undecided`` are cards whose lines are there, and whose conditions ask for more than is known.
    """

    lines: int
    found: Sequence[Found]
    undecided: Sequence[Known] = ()


class _Tally:
    """One signature on its way through the log: how much of its sequence has been seen, and what that came to."""

    def __init__(self, card: Known, signature: Signature, tell: Callable[[Match], None]) -> None:
        self.card = card
        self.signature = signature
        self.count = 0
        self.last = 0
        self.matches: list[Match] = []
        self.undecided = False
        self._tell = tell
        self._step = 0
        self._pending: list[Match] = []  # whole sequences that wait for the end of their process: the first KEPT
        self._waiting = 0
        self._latest = 0  # the line of the last of them
        self._later = bool(signature.never_then or signature.last or signature.conditions.asked)
        self._wanted = (*signature.lines, *signature.without, *signature.never_then)
        if card.begins is not None:
            self._wanted += (card.begins,)
        self.literals = tuple(one.literal.encode() for one in self._wanted)

    @property
    def expects_silence(self) -> bool:
        """Whether any line that follows now is of interest."""
        return bool(self._waiting) and self.signature.last

    def look(self, number: int, raw: bytes, facts: Facts) -> None:
        """Look at one line."""
        known = any(one in raw for one in self.literals)
        text = raw.decode("utf-8", "replace").rstrip("\r\n") if known else ""
        signature = self.signature
        if known and self.card.begins is not None and self.card.begins.found_in(text):
            self.decide(facts)
        if self.expects_silence and raw.strip():
            self._forget()
        if not known:
            return
        if self._waiting and _any(signature.never_then, text):
            self._forget()
        if signature.lines[self._step].found_in(text):
            self._step += 1
            if self._step == len(signature.lines):
                self._step = 0
                self._complete(Match(number, text.strip()[:_SHOWN], self.card, signature))
        elif self._step and _any(signature.without, text):
            self._step = 0

    def decide(self, facts: Facts) -> None:
        """The process is at its end: what has waited for that is a match now, or is none."""
        if self._waiting and self.signature.conditions.hold(facts):
            self.count += self._waiting
            self.last = self._latest
            for one in self._pending:
                self._keep(one)
        elif self._waiting:
            self.undecided = True
        self._forget()
        self._step = 0

    def _complete(self, match: Match) -> None:
        if not self._later:
            self.count += 1
            self.last = match.line
            self._keep(match)
            return
        self._waiting += 1
        self._latest = match.line
        if len(self._pending) < KEPT:
            self._pending.append(match)

    def _keep(self, match: Match) -> None:
        if len(self.matches) < KEPT:
            self.matches.append(match)
            self._tell(match)

    def _forget(self) -> None:
        self._pending.clear()
        self._waiting = 0


def _any(patterns: Sequence[Pattern], text: str) -> bool:
    return any(one.found_in(text) for one in patterns)


def scan(
    log: Log, cards: Sequence[Known], *, tell: Callable[[Match], None] | None = None, facts: Facts | None = None
) -> Summary:
    """Read a log to its end and say what it shows.

    ``tell`` is called for each match that is kept as soon as it is one, so that a log that still grows can be
    followed. ``facts`` are what is known besides the log. Raises OSError as reading does.
    """
    known = facts or Facts()
    say = tell or (lambda _match: None)
    tallies = [_Tally(card, signature, say) for card in cards for signature in card.signatures]
    begins = {one.begins for one in cards if one.begins is not None}
    # Of texts only, so that the time it takes does not depend on what is in the log.
    texts = {text for one in tallies for text in one.literals} | set(HINTS) | {one.literal.encode() for one in begins}
    telling = re.compile(b"|".join(map(re.escape, sorted(texts))))
    number = 0
    for block in _blocks(log):
        candidates = [one for one in tallies if one.expects_silence or any(text in block for text in one.literals)]
        hinted = any(hint in block for hint in HINTS)
        if not candidates and not hinted:
            number += block.count(b"\n") + (not block.endswith(b"\n"))
            continue
        for line in _lines(block):
            number += 1
            if telling.search(line) is None:
                for one in candidates:
                    if one.expects_silence:
                        one.look(number, line, known)
                continue
            for one in candidates:
                one.look(number, line, known)
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            known.of_line(text)
            if any(one.found_in(text) for one in begins):
                known.begin()
    for one in tallies:
        one.decide(known)
    found = [
        Found(one.card, one.signature, one.count, one.matches[0].line, one.last, one.matches)
        for one in tallies
        if one.count
    ]
    shown = {one.card.id for one in found}
    undecided = {one.card.id: one.card for one in tallies if one.undecided and one.card.id not in shown}
    return Summary(number, sorted(found, key=lambda one: one.first), tuple(undecided.values()))


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
                "pattern": one.signature.text,
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
        "undecided": [one.id for one in summary.undecided],
    }

r"""Patterns whose search takes time linear in the text, whatever the text is.

Parts of a log come from clients: a pattern that backtracks is a way to stop the reader. So a pattern is turned
into a nondeterministic automaton whose states are all followed at once (Thompson 1968): each character of the text is
looked at once. The syntax is the common part of everybody's:

    abc  .  \. \d \w \s \D \W \S  [a-z_] [^"]  x* x+ x?  (a|b)  ^ $

Each pattern has to have a literal text in it, of ``SHORTEST`` characters at least, that every match has (outside of
groups and without ``*``, ``+`` or ``?`` behind it). It is looked for first, which is what makes big logs quick to read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lastcall_drill.errors import DrillError

SHORTEST: Final = 4
LONGEST: Final = 500
_DEEPEST: Final = 20

_WORD: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_DIGITS: Final = frozenset("0123456789")
_SPACE: Final = frozenset(" \t\r\n\f\v")
_CLASSES: Final[dict[str, tuple[frozenset[str], bool]]] = {
    "d": (_DIGITS, False),
    "w": (_WORD, False),
    "s": (_SPACE, False),
    "D": (_DIGITS, True),
    "W": (_WORD, True),
    "S": (_SPACE, True),
}

Test = Callable[[str], bool]


class PatternError(DrillError):
    """A pattern that cannot be used. Its text says why, and where in it."""


class Pattern:
    """A compiled pattern. ``literal`` is a text that every match has. Raises PatternError."""

    def __init__(self, text: str, *, needs_literal: bool = True) -> None:
        if not text or len(text) > LONGEST:
            raise PatternError(f"a pattern of 1 to {LONGEST} characters was expected, not {len(text)}")
        self.text = text
        parser = _Parser(text)
        self._start = parser.start
        self.literal = parser.literal
        if needs_literal and len(self.literal) < SHORTEST:
            raise PatternError(
                f"{text!r} has no literal text of {SHORTEST} characters that every match has: one was expected, "
                "outside of groups"
            )

    def found_in(self, line: str) -> bool:
        """Whether it matches somewhere in a line (without its line break)."""
        return self.literal in line and self._simulate(line)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def _simulate(self, line: str) -> bool:
        states: list[_Node] = []
        last = len(line)
        for at in range(last + 1):
            seen = set(states)
            if self._follow(self._start, states, seen, at == 0, at == last):
                return True
            if at == last:
                return False
            character = line[at]
            following: list[_Node] = []
            seen = set()
            for state in states:
                if state.test is not None and state.test(character):
                    for target in state.targets:
                        if self._follow(target, following, seen, False, at + 1 == last):
                            return True
            states = following
        return False

    def _follow(self, node: _Node, into: list[_Node], seen: set[_Node], at_start: bool, at_end: bool) -> bool:
        """Add what can be reached without a character; whether the end of the pattern can."""
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            if one.accepts:
                return True
            if one.test is not None:
                into.append(one)
            elif not (one.anchor == "^" and not at_start) and not (one.anchor == "$" and not at_end):
                waiting.extend(one.targets)
        return False


class _Node:
    """A state: it eats a character that passes ``test``, or none if that is None, and goes on to ``targets``."""

    __slots__ = ("accepts", "anchor", "targets", "test")

    def __init__(self, test: Test | None = None, anchor: str = "") -> None:
        self.test = test
        self.anchor = anchor
        self.targets: list[_Node] = []
        self.accepts = False


class _Part:
    """A piece of the automaton: where it begins, and the one state where it ends."""

    def __init__(self, first: _Node, last: _Node) -> None:
        self.first = first
        self.last = last


class _Parser:
    """Recursive descent: alternatives of sequences of repeated atoms."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._alternatives = False
        self._run = ""
        self.literal = ""
        whole = self._choice()
        if self._at < len(text):
            raise self._error("an opening bracket before this one")
        whole.last.accepts = True
        self.start = whole.first
        if self._alternatives:
            self.literal = ""  # a literal of one branch is none of the others

    def _error(self, expected: str) -> PatternError:
        return PatternError(f"{self._text!r}, character {self._at + 1}: {expected} was expected")

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _choice(self) -> _Part:
        branches = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            self._alternatives = self._alternatives or self._depth == 0
            branches.append(self._sequence())
        if len(branches) == 1:
            return branches[0]
        first, last = _Node(), _Node()
        for branch in branches:
            first.targets.append(branch.first)
            branch.last.targets.append(last)
        return _Part(first, last)

    def _sequence(self) -> _Part:
        first = last = _Node()
        while self._peek() not in ("", "|", ")"):
            part, character = self._atom()
            repeat = self._peek()
            if repeat and repeat in "*+?":
                self._at += 1
                if self._peek() and self._peek() in "*+?{":
                    raise self._error("one repetition only")
                part = self._repeated(part, repeat)
                character = ""
            elif repeat == "{":
                raise self._error("* or + or ? instead of counted repetition")
            self._remember(character)
            last.targets.append(part.first)
            last = part.last
        self._remember("")
        return _Part(first, last)

    def _remember(self, character: str) -> None:
        """Keep the longest run of plain characters outside of groups."""
        if self._depth:
            return
        self._run = self._run + character if character else ""
        if len(self._run) > len(self.literal):
            self.literal = self._run

    def _repeated(self, part: _Part, how: str) -> _Part:
        first, last = _Node(), _Node()
        first.targets.append(part.first)
        part.last.targets.append(last)
        if how in "*?":
            first.targets.append(last)
        if how in "*+":
            part.last.targets.append(part.first)
        return _Part(first, last)

    def _atom(self) -> tuple[_Part, str]:
        """One atom, and the plain character that it is, if it is one."""
        character = self._peek()
        self._at += 1
        if character == "(":
            return self._group(), ""
        if character in "^$":
            return self._single(_Node(anchor=character)), ""
        if character == ".":
            return self._single(_Node(lambda _one: True)), ""
        if character == "[":
            return self._single(_Node(self._class())), ""
        if character in "*+?{":
            self._at -= 1
            raise self._error("something to repeat before this")
        if character == "\\":
            escaped = self._escaped()
            if escaped in _CLASSES:
                members, negated = _CLASSES[escaped]
                return self._single(_Node(_member(members, negated))), ""
            character = escaped
        return self._single(_Node(_member(frozenset(character), False))), character

    def _single(self, node: _Node) -> _Part:
        last = _Node()
        node.targets.append(last)
        return _Part(node, last)

    def _group(self) -> _Part:
        if self._text.startswith("?", self._at) and not self._text.startswith("?:", self._at):
            raise self._error("a plain group, ( or (?:,")
        if self._peek() == "?":
            self._at += 2
        self._remember("")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(f"at most {_DEEPEST} groups within each other")
        part = self._choice()
        self._depth -= 1
        if self._peek() != ")":
            raise self._error("a closing bracket")
        self._at += 1
        return part

    def _escaped(self) -> str:
        character = self._peek()
        if not character or (character.isalnum() and character not in _CLASSES):
            raise self._error("one of d, w, s, D, W, S or a punctuation character after \\")
        self._at += 1
        return character

    def _class(self) -> Test:
        negated = self._peek() == "^"
        self._at += negated
        members: set[str] = set()
        while self._peek() not in ("", "]") or not members:
            members |= self._class_item()
        if not self._peek():
            raise self._error("] at the end of the class")
        self._at += 1
        return _member(frozenset(members), negated)

    def _class_item(self) -> frozenset[str]:
        first = self._class_character()
        if len(first) > 1 or self._peek() != "-" or self._text.startswith("-]", self._at):
            return first
        self._at += 1
        last = self._class_character()
        (low,) = first
        if len(last) != 1 or min(last) < low:
            raise self._error("a range such as a-z")
        return frozenset(map(chr, range(ord(low), ord(min(last)) + 1)))

    def _class_character(self) -> frozenset[str]:
        character = self._peek()
        if not character:
            raise self._error("] at the end of the class")
        self._at += 1
        if character != "\\":
            return frozenset(character)
        escaped = self._escaped()
        if escaped in _CLASSES:
            members, negated = _CLASSES[escaped]
            if negated:
                raise self._error("no \\D, \\W or \\S inside of [ ]")
            return members
        return frozenset(escaped)


def _member(members: frozenset[str], negated: bool) -> Test:
    if negated:
        return lambda one: one not in members
    return members.__contains__

"""Text of other programs, made fit to be shown: no terminal codes, no control characters, no reversed lines.

Labels, sentences and above all the output of servers are not ours. Every report shows them through ``clean``.
"""

from __future__ import annotations

import re

# ECMA-48: CSI sequences (colours), OSC strings (titles, links), and the other escapes of two characters.
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_LINE_ENDS = re.compile(r"\r\n?|[\x85\u2028\u2029]")
# Controls, lone surrogates (which have no UTF-8), characters that XML forbids, and those that reorder a line.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def clean(text: str) -> str:
    """``text`` without terminal sequences; every other unfit character but newline and tab becomes U+FFFD."""
    return _UNFIT.sub(REPLACEMENT, _LINE_ENDS.sub("\n", _TERMINAL.sub("", text)))


def one_line(text: str) -> str:
    """``text`` cleaned, with all white space folded into single spaces."""
    return " ".join(clean(text).split())


def shorten(text: str, width: int, *, ellipsis: str = "…") -> str:
    """At most ``width`` characters of ``text``; the ellipsis counts. A width below its length cuts without one."""
    if len(text) <= width:
        return text
    return text[: width - len(ellipsis)] + ellipsis if width > len(ellipsis) else text[: max(width, 0)]


def excerpt(text: str, *, lines: int = 120, characters: int = 12_000) -> str:
    """The cleaned end of ``text``, where servers say why they stopped. What was left out is said in a first line."""
    shown = clean(text).strip("\n")
    kept = "\n".join(shown[-characters:].split("\n")[-lines:])
    if len(kept) == len(shown):
        return shown
    return f"[… {len(shown) - len(kept)} characters before this are left out]\n{kept}"


def seconds(at: float) -> str:
    """A moment relative to the signal: ``+0.250 s``, ``-1.200 s``."""
    return f"{at + 0.0:+.3f} s"


def duration(length: float) -> str:
    """A length of time in seconds, to three figures or so: ``0.034 s``, ``3.21 s``, ``31.0 s``, ``125 s``."""
    digits = next((digits for limit, digits in ((1, 3), (10, 2), (100, 1)) if abs(length) < limit), 0)
    return f"{length:.{digits}f} s"


def counted(number: int, noun: str) -> str:
    """``1 server``, ``5 servers``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""Findings as text and as JSON. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from typing import Final

from lastcall_doctor.catalogue import Finding, Severity

FORMAT: Final = 1
"""Version of the JSON: it grows if a field goes or changes its meaning."""
WIDTH: Final = 100
_INDENT: Final = "    "


def as_json(findings: Sequence[Finding], looked_at: Sequence[str]) -> str:
    """An object with ``format``, ``looked_at``, ``counts`` by severity, and ``findings`` with all their fields."""
    return json.dumps(
        {
            "format": FORMAT,
            "looked_at": list(looked_at),
            "counts": counts(findings),
            "findings": [{**vars(one), "severity": one.severity.value, "lines": list(one.lines)} for one in findings],
        },
        indent=2,
        ensure_ascii=False,
    )


def as_text(
    findings: Sequence[Finding],
    looked_at: Sequence[str],
    paint: Callable[[str, Severity], str] = lambda text, severity: text,
) -> str:
    """A paragraph for each finding, and a line at the end. ``paint`` colours a severity's word."""
    blocks = [_paragraph(one, paint) for one in findings]
    seen = ", ".join(looked_at)
    if not findings:
        return f"No findings: {seen}."
    tally = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts(findings).items() if count)
    return "\n\n".join([*blocks, f"{tally}: {seen}."])


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many there are of each severity, by its word."""
    return {one.value: sum(finding.severity is one for finding in findings) for one in Severity}


def _paragraph(one: Finding, paint: Callable[[str, Severity], str]) -> str:
    head = f"{paint(one.severity.value, one.severity)} {one.id}: {one.where}"
    return "\n".join(
        [head, *_wrapped(one.text), *_wrapped(f"Fix: {one.fix}"), *(f"{_INDENT * 2}{x}" for x in one.lines)]
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    )

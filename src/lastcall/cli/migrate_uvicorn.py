"""``lastcall migrate -- uvicorn …``. Its options are ours, by the same names: the table says what is missing."""

from __future__ import annotations

from collections.abc import Sequence

import click

from lastcall.cli.translation import Translation, is_off, read_words, table_flags


def from_uvicorn(words: Sequence[str]) -> Translation:
    """Translate the words behind ``uvicorn``. Raises UsageError for what is not understood."""
    made = Translation()
    for written, flag, value in read_words(words, table_flags(), "uvicorn"):
        if flag is None:
            if made.app:
                raise click.UsageError(f"uvicorn serves one application: {made.app!r}, and then {written!r}")
            made.app = written
        elif flag.takes_value:
            made.keep(flag.name, value, written=written)
        else:
            made.keep(flag.name, not is_off(written, flag.name), written=written)
    if not made.app:
        raise click.UsageError("uvicorn names no application: expected module:attribute")
    return made

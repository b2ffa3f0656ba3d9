"""``python -m lastcall`` is the command ``lastcall``."""

from __future__ import annotations

from typing import NoReturn

from lastcall.base.early_exit import leave_at_once


def main() -> NoReturn:
    """Entry point of the command; see ``lastcall.cli.main``, which takes a while to import."""
    leave_at_once()
    from lastcall.cli.main import main as command  # noqa: PLC0415 - not before Ctrl-C is quiet

    command()


if __name__ == "__main__":
    main()

"""``python -m lastcall_once`` is the command ``lastcall-once``."""

from __future__ import annotations

from lastcall_once.cli.main import main

if __name__ == "__main__":
    main()

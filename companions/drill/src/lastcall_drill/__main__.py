"""``python -m lastcall_drill`` is the command ``lastcall-drill``."""

from __future__ import annotations

from lastcall_drill.cli.main import main

if __name__ == "__main__":
    main()

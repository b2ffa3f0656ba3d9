"""``python -m lastcall`` is the command ``lastcall``."""

from __future__ import annotations

from lastcall.cli.main import main

if __name__ == "__main__":
    main()

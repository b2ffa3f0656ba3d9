"""``python -m lastcall_doctor`` is the command ``lastcall-doctor``."""

from __future__ import annotations

from lastcall_doctor.cli import main

if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Run the benchmark: `bench/run.py [load|idle|startup|accesslog|once|fleet] [options]`. See bench/README.md."""

from __future__ import annotations

import sys
from pathlib import Path

# As a script the first entry is bench/ itself; the package is found from the repository.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.harness.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

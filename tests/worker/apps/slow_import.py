"""An application whose import takes its time."""

from __future__ import annotations

import os
import time

from app import app  # type: ignore[import-not-found]

print("importing", flush=True)
time.sleep(float(os.environ.get("IMPORT_SECONDS", "60")))

__all__ = ["app"]

"""A module whose import does not end."""

from __future__ import annotations

import os
import time

os.write(1, b"import began\n")
time.sleep(1000)

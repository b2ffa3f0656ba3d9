"""All that the codecs do, once each, for a memory checker: ``scripts/valgrind`` runs this file."""

from __future__ import annotations

import gc
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from lastcall.wire.buffer import ByteBuffer  # noqa: E402
from lastcall.wire.head import checked  # noqa: E402
from lastcall.wire.response import encoded  # noqa: E402
from tests.fuzz import seeds, target, test_leaks  # noqa: E402


def main() -> None:
    rng = random.Random(1)
    inputs = list(seeds.seeds().values())
    for data in inputs:
        target.check(data)
        at = rng.randrange(target.PREFIX, len(data)) if len(data) > target.PREFIX else 0
        target.check(data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :])
    test_leaks.parse_streams(len(test_leaks.STREAMS))
    test_leaks.encode_heads(len(test_leaks.HEADERS))
    for size in (16379, 16380, 16381, 100_000):
        encoded(checked(200, [(b"x", b"v" * size)]))
    buffers = [ByteBuffer() for _ in range(100)]
    del buffers
    gc.collect()
    print(f"{2 * len(inputs)} inputs, {len(test_leaks.STREAMS)} streams, {len(test_leaks.HEADERS)} heads")


if __name__ == "__main__":
    main()

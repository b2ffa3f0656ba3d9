"""Fuzz the compiled codecs with atheris (libFuzzer): ``python tests/fuzz/run.py --seconds 300``.

Wants ``pip install atheris`` (CPython 3.11 to 3.13) and the extension modules built for the Python that runs it. Ends
with 0 after the time without a finding; a finding is written to ``build/fuzz/`` and ends it with another code. It
belongs, with the fix, in ``tests/fuzz/corpus/NAME.bin``: the tests replay what is there. ``--replay FILE...`` runs
files once instead.

They are compiled without coverage counters, which gcc has none of that libFuzzer reads. So the harness counts for
them: each thing that a codec tells, such as a reason for refusal or a sequence of events, is a branch of its own.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.fuzz import seeds, target  # noqa: E402

PROBES = 2048
WORK = ROOT / "build" / "fuzz"


def make_notice(instrument: Callable[[Any], Any]) -> Callable[[object], None]:
    """A function that takes another branch for (nearly) every other object that it is told."""
    namespace: dict[str, Any] = {}
    exec("".join(f"def probe_{i}(): return {i}\n" for i in range(PROBES)), namespace)
    probes = [instrument(namespace[f"probe_{i}"]) for i in range(PROBES)]

    def notice(thing: object) -> None:
        probes[zlib.crc32(repr(thing)[:60].encode()) % PROBES]()

    return notice


def fuzz(seconds: int, seed: int, most_mib: int) -> None:
    """Never returns: libFuzzer ends the process."""
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        raise SystemExit("lastcall: fuzzing needs atheris: pip install atheris") from None
    corpus = WORK / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in seeds.seeds().items():
        (corpus / name.replace("/", "-")).write_bytes(data)
    (WORK / "dictionary").write_text(seeds.dictionary())
    notice = make_notice(atheris.instrument_func)
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-rss_limit_mb={most_mib}",
        f"-dict={WORK / 'dictionary'}",
        f"-artifact_prefix={WORK}/",
        "-max_len=2048",
        "-timeout=5",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, lambda data: target.check(data, notice))
    atheris.Fuzz()


def replay(files: list[Path]) -> None:
    """Run each file once; the first failure is a traceback."""
    for path in files:
        target.check(path.read_bytes())
    print(f"{len(files)} files, no finding; peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300, help="how long (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0: another one each time")
    parser.add_argument("--rss", type=int, default=512, help="MiB of memory that count as a leak (default: 512)")
    parser.add_argument("--replay", type=Path, nargs="+", default=[], metavar="FILE")
    options = parser.parse_args()
    if options.replay:
        replay(options.replay)
    else:
        fuzz(options.seconds, options.seed, options.rss)


if __name__ == "__main__":
    main()

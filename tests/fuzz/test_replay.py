"""The fuzzer's seeds and past findings, replayed: what it once found is never found again."""

from __future__ import annotations

import random
import re

import pytest

from lastcall.wire.head import checked
from lastcall.wire.response import encoded
from tests.fuzz import target
from tests.fuzz.seeds import CORPUS, dictionary, seeds

SEEDS = seeds()


def test_every_seed_passes() -> None:
    for name, data in SEEDS.items():
        try:
            target.check(data)
        except Exception as error:
            error.add_note(f"seed {name}")
            raise


def test_the_corpus_is_replayed() -> None:
    assert {name for name in SEEDS if name.startswith("corpus/")} == {f"corpus/{p.name}" for p in CORPUS.iterdir()}
    assert any(name.startswith("corpus/") for name in SEEDS)


def test_mutated_seeds_pass() -> None:
    """A small fuzz run that is the same each time: single bytes changed, pieces cut out, seeds joined."""
    rng = random.Random(20251122)
    inputs = list(SEEDS.values())
    for _ in range(5000):
        data = bytearray(rng.choice(inputs))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 8)]
                case 2:
                    data[at:at] = rng.choice(inputs)[target.PREFIX :]
                case _:
                    data[at : at + 1] = rng.choice([b"\r\n", b"\r", b"\n", b" ", b"\x1f", b"0", b":", b"\x00"])
            data = data or bytearray(target.PREFIX)
        target.check(bytes(data))


def test_the_target_notices_a_codec_that_lets_breaks_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself works: with an encoder that checks nothing it fails."""

    class Careless:
        """What a check that lets everything through would make."""

        content_length, close, has_date, has_server, bodiless = -1, False, False, False, False

        def __init__(self, status: int, headers: list[tuple[bytes, bytes]], defaults: object) -> None:
            self.status = status
            self.fields = tuple(headers)

    def write(head: Careless) -> bytes:
        return encoded(checked(head.status)) + b"".join(b"%s: %s\r\n" % pair for pair in head.fields)

    data = bytes([0x04, 0x00, 0xC8]) + b"location\x1f/\r\nset-cookie: a=b"
    target.check(data)
    monkeypatch.setattr(target, "checked", Careless)
    monkeypatch.setattr(target, "encoded", write)
    with pytest.raises(AssertionError):
        target.check(data)


def test_the_dictionary_is_one_that_libfuzzer_reads() -> None:
    assert re.fullmatch(r'("(?:[^"\\]|\\x[0-9a-f]{2})+"\n)+', dictionary())

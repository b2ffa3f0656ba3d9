from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companions.once.tests.calls import http_scope
from lastcall_once._types import Message
from lastcall_once.fingerprint import Body, fingerprint_of, hash_of_caller, parse_key


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b'  "with spaces, commas"\t', "with spaces, commas"),
        (rb'"a\"b\\c"', 'a"b\\c'),
        (b'"a"; b=1; c', "a"),
        (b"a/b=c+d:e", "a/b=c+d:e"),
        (b"k" * 255, "k" * 255),
        (b'"' + b"k" * 255 + b'"', "k" * 255),
    ],
)
def test_keys(value: bytes, key: str) -> None:
    assert parse_key([value]) == key


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"   ",
        b'""',
        b'"',
        b'"a',
        b'a"',
        b'a"b',
        b'"a"b"',
        b'"a\\b"',
        b'"a" b',
        b"a, b",
        b"a b",
        b"a\tb",
        b"a\x00b",
        b"a\x7f",
        b'"a\x1f"',
        "schlüssel".encode(),
        '"schlüssel"'.encode("latin-1"),
        b"k" * 256,
        b'"' + b"k" * 256 + b'"',
    ],
)
def test_malformed_keys(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[A-Z].*\.$"):
        parse_key([value])


def test_two_headers() -> None:
    with pytest.raises(ValueError, match="more than once"):
        parse_key([b"a", b"a"])


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255))
def test_every_string_has_a_quoted_form(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse_key([quoted.encode()]) == key


@given(st.binary(max_size=300))
def test_no_bytes_break_it(value: bytes) -> None:
    try:
        key = parse_key([value])
    except ValueError:
        return
    assert 1 <= len(key) <= 255
    assert key.isascii()
    assert key.isprintable()


def test_callers_are_not_stored_in_clear() -> None:
    assert "secret" not in hash_of_caller("Bearer secret")
    assert hash_of_caller("a") == hash_of_caller(b"a") != hash_of_caller("b")


def body_of(pieces: Sequence[bytes], most: int = 1000) -> Body:
    """A body that was read ahead."""
    messages = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    body = Body(receive, most)
    assert asyncio.run(body.read())
    return body


def fingerprint(content: bytes = b"{}", *, most: int = 1000, canonical: bool = False, **scope: Any) -> str:
    return fingerprint_of(http_scope(**scope), body_of([content], most), canonical_json=canonical)


def test_what_counts() -> None:
    others = [
        fingerprint(),
        fingerprint(method="PATCH"),
        fingerprint(path="/pay/"),
        fingerprint(query=b"a=1"),
        fingerprint(b"{} "),
        fingerprint(path="/payments{", content=b"}"),
    ]
    assert len(set(others)) == len(others)
    assert fingerprint() == fingerprint(headers=[(b"traceparent", b"00-1-1-00"), (b"accept", b"*/*")])
    assert fingerprint_of(http_scope(), body_of([b"{", b"", b"}"])) == fingerprint()


def test_the_path_counts_as_it_was_sent() -> None:
    plain = fingerprint(path="/a/b")
    assert fingerprint(path="/a/b", raw_path=b"/a/b") == fingerprint(path="/a/b", raw_path=None) == plain
    encoded = [fingerprint(path="/a/b", raw_path=raw) for raw in (b"/a%2Fb", b"/a%2fb", b"/%61/b")]
    assert len({plain, *encoded}) == 4
    assert fingerprint(path="/é", raw_path=b"/%C3%A9") == fingerprint(path="/é", raw_path=b"/%C3%A9")


def multipart(boundary: str, *parts: str, kind: str = "multipart/form-data; boundary={}", most: int = 1000) -> str:
    body = "".join(f"--{boundary}\r\nContent-Disposition: form-data; name=a\r\n\r\n{part}\r\n" for part in parts)
    body += f"--{boundary}--\r\n"
    return fingerprint(body.encode(), most=most, headers=[(b"content-type", kind.format(boundary).encode())])


def test_the_boundary_of_a_form_does_not_count() -> None:
    first = multipart("abc123", "one", "two")
    assert multipart("xyz789", "one", "two") == first
    assert multipart("xyz", "one", "two", kind='Multipart/Form-Data; charset=utf-8; Boundary="{}"') == first
    others = [
        multipart("abc123", "one", "tw0"),
        multipart("abc123", "onetwo"),
        multipart("abc123", "one"),
        multipart("abc123", "two", "one"),
    ]
    assert len({first, *others}) == len(others) + 1
    # What is no form, or has a boundary that can be read in two ways, counts by its bytes.
    for kind in (
        "text/plain; boundary={}",
        "multipart/form-data; xboundary={}",
        "multipart/form-data; boundary={}; boundary=other",
    ):
        assert multipart("abc", "one", kind=kind) != multipart("xyz", "one", kind=kind)
    large = [multipart(boundary, "1" * 100, "2" * 900, most=500) for boundary in ("abc", "xyz")]
    assert large[0] == large[1] != multipart("abc", "2" * 100, "2" * 900, most=500)


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=3), st.lists(st.binary(max_size=6), min_size=1, max_size=3))
def test_two_forms_are_one_only_if_their_parts_are(one: list[bytes], other: list[bytes]) -> None:
    def form(parts: list[bytes], boundary: bytes) -> str:
        kind = [(b"content-type", b"multipart/form-data; boundary=" + boundary)]
        return fingerprint((b"--" + boundary).join(parts), headers=kind)

    assert (form(one, b"a\x7fb") == form(other, b"c\x7fd")) is (one == other)


def test_json_in_another_order() -> None:
    headers = [(b"content-type", b"application/json; charset=utf-8")]

    def canonical(text: str, **scope: Any) -> str:
        return fingerprint(text.encode(), most=10**6, canonical=True, **({"headers": headers} | scope))

    first = canonical('{"a": [1, 2.0], "b": {"c": "ü", "d": null}}')
    assert canonical('{ "b":{"d":null,"c":"\\u00fc"},\n"a":[1,2.0]}') == first
    others = [
        '{"a": [2.0, 1]}',
        '{"a": 1}',
        '{"a": 1.0}',
        '{"a": "1"}',
        '{"a": true}',
        '{"a": 1, "a": 2}',
        "[1",
        "\xff",
    ]
    found = [canonical(text) for text in others]
    assert len({first, *found}) == len(found) + 1
    # What is no JSON, or does not say that it is, counts by its bytes.
    assert canonical("[1", headers=()) != canonical("[1 ", headers=())
    assert canonical('{"a": 1}', headers=()) != canonical('{"a":1}', headers=())
    assert canonical("[" * 100_000) != canonical("[" * 100_000 + " ")
    patch = [(b"content-type", b"application/merge-patch+json")]
    assert canonical('{"a": 1}', headers=patch) == canonical('{"a":1}', headers=patch)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists), st.booleans())
def test_any_json_is_canonical(value: Any, sort: bool) -> None:
    headers = [(b"content-type", b"application/json")]
    loose = json.dumps({"b": value, "a": value}, indent=1, sort_keys=sort)
    tight = json.dumps({"a": value, "b": value}, separators=(",", ":"))
    assert fingerprint(loose.encode(), most=10**6, canonical=True, headers=headers) == fingerprint(
        tight.encode(), most=10**6, canonical=True, headers=headers
    )


def test_a_body_over_the_cap_counts_by_its_beginning_and_its_length() -> None:
    async def known(content: bytes, length: bytes, step: int = 10) -> str:
        pieces = [content[i : i + step] for i in range(0, len(content), step)]
        messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]

        async def receive() -> Message:
            return messages.pop(0)

        body = Body(receive, 100)
        assert await body.read()
        assert not body.complete
        found = fingerprint_of(http_scope(headers=[(b"content-length", length)]), body)
        given = b"".join([(await body.receive())["body"] for _ in pieces])
        assert given == content
        return found

    one = asyncio.run(known(b"a" * 200, b"200"))
    assert {asyncio.run(known(b"a" * 200, b"200", step)) for step in (7, 99, 100, 101, 200)} == {one}
    assert asyncio.run(known(b"a" * 100 + b"b" * 100, b"200")) == asyncio.run(known(b"a" * 100 + b"c" * 100, b"200"))
    assert asyncio.run(known(b"a" * 201, b"201")) != one
    assert asyncio.run(known(b"b" + b"a" * 199, b"200")) != one

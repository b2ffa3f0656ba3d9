"""Forwarding headers: their forms in the wild, and what a client can and cannot say by them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.wire.forwarded import MAX_HOPS, client, elements, listed, node


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" 192.0.2.1:80 ", ("192.0.2.1", 80)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("::ffff:192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:_port", ("192.0.2.1", 0)),
        ("192.0.2.1:99999", ("192.0.2.1", 0)),
        ("unknown", None),
        ("_hidden", None),
        ("[::1", None),
        ("fe80::1%eth0", None),
    ],
)
def test_a_node(text: Any, said: Any) -> None:
    assert node(text) == said


@given(st.lists(st.text("1.:[], \tx_", max_size=20)))
def test_what_a_client_prepends_changes_nothing(spoofed: Any) -> None:
    said = [*(each.encode() for each in spoofed), b"192.0.2.9, 10.0.0.1", b"10.0.0.2,"]
    assert client(listed(said), lambda host: host.startswith("10.")) == ("192.0.2.9", 0)


def test_all_trusted_is_the_leftmost_and_a_hidden_hop_is_nobody() -> None:
    assert client(["10.0.0.1", "10.0.0.2"], lambda _: True) == ("10.0.0.1", 0)
    assert client(["192.0.2.1", "unknown", "10.0.0.2"], lambda _: True) is None


def test_forwarded_in_its_forms() -> None:
    lines = [b'For="[2001:db8::1]:4711"; PROTO=https ;by=_x', b', for=192.0.2.1;host="a\\"b,c"']
    assert elements(lines) == [
        {"for": "[2001:db8::1]:4711", "proto": "https", "by": "_x"},
        {"for": "192.0.2.1", "host": 'a"b,c'},
    ]


@pytest.mark.parametrize("bad", [b'for="x', b"for", b"for=a for=b", b"for=a;for=b", b'for="a"b', b"=a"])
def test_malformed_forwarded_holds_nothing(bad: Any) -> None:
    assert elements([b"for=192.0.2.1", bad]) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_read_within_bounds(raw: Any) -> None:
    assert len(listed([raw])) <= MAX_HOPS
    found = elements([raw])
    assert found is None or len(found) <= MAX_HOPS

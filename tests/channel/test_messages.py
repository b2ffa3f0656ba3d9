"""Messages survive the way through JSON, and nothing else gets through it."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.channel.messages import TYPES, ChannelError, Message, decode, encode

NUMBERS = st.integers(-(2**40), 2**40)
OF_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBERS,
    str: st.text(max_size=30),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    float | None: st.none() | st.floats(allow_nan=False, allow_infinity=False),
    tuple[int, ...]: st.lists(NUMBERS, max_size=4).map(tuple),
    tuple[str, ...]: st.lists(st.text(max_size=9), max_size=4).map(tuple),
    dict[str, int]: st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3),
    dict[str, Any]: st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    tuple[dict[str, Any], ...]: st.lists(st.dictionaries(st.text(max_size=5), NUMBERS, max_size=2), max_size=2).map(
        tuple
    ),
}


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
@given(data=st.data())
def test_a_message_comes_out_as_it_went_in(kind: type[Message], data: st.DataObject) -> None:
    hints = get_type_hints(kind)
    message = kind(**{name: data.draw(OF_TYPE[hints[name]]) for name in kind._fields})
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no JSON",
        b"[]",
        b"7",
        b"{}",
        b'{"type": "nothing"}',
        b'{"type": []}',
        b'{"type": "hello"}',
        b'{"type": "hello", "pid": 1, "more": 2}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ChannelError):
        decode(data)


def test_a_message_is_one_json_object_with_its_type() -> None:
    assert json.loads(encode(TYPES["hello"](pid=7))) == {"type": "hello", "pid": 7}

"""Response heads: what an application may say, what is dropped, what is refused; h11 reads back what is accepted.

Names are looked at once and then known again by identity, so each property is tried with names that are used again and
again, and with names that are equal but other objects.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.base.errors import LocalProtocolError
from lastcall.wire.head import ResponseHead, checked
from lastcall.wire.response import encoded
from tests.wire.strategies import TCHARS

Headers = list[tuple[bytes, bytes]]
TEXT = (b"content-type", b"text/plain")


def block(headers: Any, *, status: int = 200, defaults: Headers | None = None) -> bytes:
    """The header lines of an answer with ``headers``."""
    line, _, lines = encoded(checked(status, headers, defaults or [])).partition(b"\r\n")
    assert line.startswith(b"HTTP/1.1 ")
    return lines


def head_of(headers: Headers, *, status: int = 200) -> ResponseHead:
    return checked(status, headers)


def lines_of(head: ResponseHead) -> bytes:
    """The header lines of a head."""
    return encoded(head).partition(b"\r\n")[2]


def refused(headers: Any, *, status: Any = 200) -> str:
    """The message of the refusal."""
    with pytest.raises(LocalProtocolError) as caught:
        checked(status, headers)
    return str(caught.value)


@pytest.mark.parametrize("status", HTTPStatus)
def test_a_registered_status_has_its_phrase(status: HTTPStatus) -> None:
    if status < 200:
        # interim responses are the server's affair
        assert "200 to 999" in refused([], status=int(status))
    else:
        line = f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode()
        assert encoded(checked(int(status))).startswith(line)
        assert encoded(checked(status)) == encoded(checked(int(status)))


@pytest.mark.parametrize("status", [209, 299, 306, 420, 499, 599, 600, 999])
def test_an_unregistered_status_has_an_empty_phrase(status: int) -> None:
    """RFC 9112 4: the space after the code stays."""
    for _ in range(2):
        head = checked(status)
        assert (encoded(head), head.status) == (b"HTTP/1.1 %d \r\n" % status, status)


@pytest.mark.parametrize("status", [199, 100, 101, 1, 0, -1, -200, 1000, 2**31, 2**32 + 200, 2**64 + 200, 10**30, True,
                                    False, 200.0, "200", b"200", None, [200]])  # fmt: skip
def test_a_status_is_an_int_from_200_to_999(status: Any) -> None:
    assert "200 to 999" in refused([], status=status)


@pytest.mark.parametrize("status", range(200, 600))
def test_204_205_and_304_have_no_body(status: int) -> None:
    assert head_of([], status=status).bodiless == (status in (204, 205, 304))


@pytest.mark.parametrize("declared", [[], [(b"content-length", b"0")], [(b"Content-Length", b"5")]])
def test_a_205_says_that_it_is_empty(declared: Headers) -> None:
    """RFC 9110 15.3.6: no content. A client reads its body as that of any other status, so that needs a length of 0."""
    for _ in range(2):
        assert block([*declared, TEXT], status=205) == b"content-type: text/plain\r\ncontent-length: 0\r\n"


def test_headers_are_written_as_they_are_given() -> None:
    headers = [TEXT, (b"X-MiXed", b"a"), (b"set-cookie", b"1"), (b"set-cookie", b"2"), (b"empty", b"")]
    head = checked(200, headers)
    assert head.fields == tuple(headers)
    assert encoded(head) == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nX-MiXed: a\r\nset-cookie: 1\r\nset-cookie: 2\r\nempty: \r\n"
    )
    assert (head.content_length, head.close, head.has_date, head.has_server) == (-1, False, False, False)


def test_no_headers() -> None:
    nothing: list[Any] = [None, [], (), iter(())]
    for headers in nothing:
        head = checked(200, headers)
        assert (encoded(head), head.fields) == (b"HTTP/1.1 200 OK\r\n", ())


@pytest.mark.parametrize("value", [b"\xe9\xff\x80", b"a\tb", b" a ", b'"q"', b"a" * 100_000])
def test_a_value_may_hold_what_a_field_may(value: bytes) -> None:
    assert block([(b"a", value)]) == b"a: " + value + b"\r\n"


@pytest.mark.parametrize(
    "name", [b"transfer-encoding", b"keep-alive", b"proxy-connection", b"upgrade", b"te", b"trailer"]
)
@pytest.mark.parametrize("spell", [bytes.lower, bytes.upper, bytes.title])
def test_hop_by_hop_fields_are_dropped(name: bytes, spell: Any) -> None:
    """RFC 9110 7.6.1: they are about this connection, which is the server's."""
    for value in (b"chunked", b"close", b""):
        head = head_of([TEXT, (spell(name), value), (b"x", b"y")])
        assert lines_of(head) == b"content-type: text/plain\r\nx: y\r\n"
        assert not head.close
    # a dropped field is checked all the same
    assert "CR, LF or NUL" in refused([(spell(name), b"a\r\nb: c")])


@pytest.mark.parametrize("name", [b"t", b"tex", b"transfer-encodin", b"transfer-encodings", b"upgrades", b"trailers",
                                  b"keep-alives", b"proxy-authenticate", b"connections", b"content-lengths", b"dates",
                                  b"servers", b"ctransfer-encoding"])  # fmt: skip
def test_names_that_only_resemble_are_kept(name: bytes) -> None:
    head = head_of([(name, b"1")])
    assert lines_of(head) == name + b": 1\r\n"
    assert (head.content_length, head.close, head.has_date, head.has_server) == (-1, False, False, False)


@pytest.mark.parametrize(("value", "close"), [
    (b"close", True), (b"Close", True), (b"keep-alive, close", True), (b" close ", True), (b"a,\tCLOSE\t,b", True),
    (b"keep-alive", False), (b"closed", False), (b"x-close", False), (b"", False), (b"clo se", False),
])  # fmt: skip
def test_the_close_of_an_application_is_honoured_and_its_header_dropped(value: bytes, close: bool) -> None:
    for name in (b"connection", b"Connection", b"CONNECTION"):
        head = head_of([(name, value), TEXT])
        assert (head.close, lines_of(head)) == (close, b"content-type: text/plain\r\n")
    assert head_of([(b"connection", value), (b"connection", b"close"), (b"connection", b"x")]).close


@pytest.mark.parametrize(("value", "length"), [
    (b"0", 0), (b"5", 5), (b"007", 7), (b"9" * 18, 10**18 - 1), (b"0" * 18, 0),
])  # fmt: skip
def test_a_content_length_is_remembered(value: bytes, length: int) -> None:
    for name in (b"content-length", b"Content-Length"):
        head = head_of([(name, value)])
        assert (head.content_length, lines_of(head)) == (length, name + b": " + value + b"\r\n")


@pytest.mark.parametrize("value", [b"", b" ", b"-1", b"+1", b"1 ", b" 1", b"1,1", b"1_0", b"0x1", b"1.0", b"\xb2",
                                   b"1" * 19, b"one", b"\xd9\xa1"])  # fmt: skip
def test_a_content_length_that_is_no_number_is_refused(value: bytes) -> None:
    assert "content-length" in refused([(b"Content-Length", value)])


@pytest.mark.parametrize("second", [b"5", b"6"])
def test_a_second_content_length_is_refused(second: bytes) -> None:
    assert "more than one" in refused([(b"content-length", b"5"), (b"Content-Length", second)])


def test_a_content_length_of_a_204_is_not_sent() -> None:
    """RFC 9110 8.6. A 304 may tell the length that a 200 would have had."""
    assert block([(b"content-length", b"0"), TEXT], status=204) == b"content-type: text/plain\r\n"
    assert block([(b"content-length", b"5")], status=304) == b"content-length: 5\r\n"


def test_date_and_server_of_the_application_are_noticed() -> None:
    for date, server in ((b"date", b"server"), (b"Date", b"Server"), (b"DATE", b"SERVER")):
        head = head_of([(date, b"x"), (server, b"y")])
        assert (head.has_date, head.has_server) == (True, True)
        assert lines_of(head) == date + b": x\r\n" + server + b": y\r\n"
        assert head_of([(date, b"x")]).has_server is False
        assert head_of([(server, b"x")]).has_date is False


@pytest.mark.parametrize("code", [c for c in range(256) if chr(c) not in TCHARS])
def test_a_name_is_a_token(code: int) -> None:
    for name in (bytes([code]), b"a%c" % code, b"%ca" % code, b"a%cb" % code, b"a" * 30 + b"%c" % code):
        assert "is not a token" in refused([(name, b"v")])


def test_an_empty_name_is_refused() -> None:
    assert "name is empty" in refused([(b"", b"v")])


@pytest.mark.parametrize(
    "bad", [b"\r", b"\n", b"\0", b"\r\n", b"\r\nSet-Cookie: a=b", b"\r\n\r\n<html>", b"\n ", b"\r\n\t"]
)
def test_a_value_has_no_line_breaks_and_no_nul(bad: bytes) -> None:
    for value in (bad, b"a" + bad, bad + b"b", b"a" + bad + b"b", b"a" * 40_000 + bad):
        for name in (b"x", b"connection", b"content-length", b"date", b"te", b"location"):
            assert "CR, LF or NUL" in refused([TEXT, (name, value)])


@pytest.mark.parametrize("pair", [("a", b"b"), (b"a", "b"), ("a", "b"), (b"a", None), (None, b"b"), (b"a", 1),
                                  (1, b"b"), (b"a", [98]), (b"a", bytearray), (["a"], b"b")])  # fmt: skip
def test_names_and_values_are_byte_strings(pair: Any) -> None:
    assert "must be two byte strings" in refused([pair])


@pytest.mark.parametrize("pair", [None, 1, (), (b"a",), (b"a", b"b", b"c"), b"abc", [], {}, object()])
def test_a_header_is_a_pair(pair: Any) -> None:
    assert "is not a (name, value) pair" in refused([pair])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_byte_string_is_taken(kind: Any) -> None:
    assert block([(kind(b"a"), kind(b"b"))]) == b"a: b\r\n"
    assert block([[kind(b"a"), kind(b"b")]], defaults=[(b"A", b"c"), (b"d", b"e")]) == b"a: b\r\nd: e\r\n"


def test_headers_may_be_any_iterable_once() -> None:
    pairs = [(b"a", b"b"), (b"c", b"d")]
    for defaults, more in (([], b""), ([(b"C", b"x"), (b"e", b"f")], b"e: f\r\n")):
        for headers in (pairs, tuple(pairs), iter(pairs), (pair for pair in pairs), dict(pairs).items()):
            assert block(headers, defaults=defaults) == b"a: b\r\nc: d\r\n" + more


def test_a_head_does_not_change_with_what_it_was_made_of() -> None:
    name, value = bytearray(b"a"), bytearray(b"b")
    headers: Any = [[name, value]]
    head = checked(200, headers)
    name[:], value[:], headers[:] = b"x", b"\r\n", []
    assert lines_of(head) == b"a: b\r\n"


def test_defaults_give_way_to_what_the_application_says() -> None:
    defaults = [(b"Server", b"lastcall"), (b"x-frame-options", b"deny"), (b"a", b"1"), (b"a", b"2")]
    assert block(None, defaults=defaults) == b"Server: lastcall\r\nx-frame-options: deny\r\na: 1\r\na: 2\r\n"
    assert block([(b"SERVER", b"x"), (b"A", b"3")], defaults=defaults) == (
        b"SERVER: x\r\nA: 3\r\nx-frame-options: deny\r\n"
    )
    assert checked(200, [], defaults).has_server
    assert "CR, LF or NUL" in refused_defaults([(b"a", b"\n")])


def refused_defaults(defaults: Headers) -> str:
    with pytest.raises(LocalProtocolError) as caught:
        checked(200, [], defaults)
    return str(caught.value)


def test_a_head_is_made_by_the_check_only() -> None:
    with pytest.raises(TypeError):
        ResponseHead()


def test_encoding_may_happen_within_encoding() -> None:
    """Headers from a generator that itself answers something: neither head has a line of the other."""

    def inner_and_outer() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"outer"
        assert block([(b"b", b"inner" * 5000)]) == b"b: " + b"inner" * 5000 + b"\r\n"
        yield b"c", b"outer"
        assert "token" in refused([(b"d", b"inner"), (b" ", b"")])
        yield b"e", b"outer"

    assert block(inner_and_outer()) == b"a: outer\r\nc: outer\r\ne: outer\r\n"


FACTS = ("content_length", "close", "has_date", "has_server", "bodiless")
SPECIAL = [b"content-length", b"connection", b"date", b"server", b"te", b"upgrade", b"x-own", b"x" * 40]


def fresh(name: bytes) -> bytes:
    """An object that nobody has seen."""
    return bytes(bytearray(name))


def facts(head: ResponseHead) -> list[object]:
    """All that a head says but its fields."""
    return [getattr(head, fact) for fact in FACTS]


@pytest.mark.parametrize("name", SPECIAL)
def test_a_name_means_the_same_however_often_it_is_used(name: bytes) -> None:
    first = checked(200, [(name, b"1")])
    for _ in range(300):
        for again in (name, fresh(name), fresh(name).upper()):
            head = checked(200, [(again, b"1")])
            assert facts(head) == facts(first)
            assert [(field.lower(), value) for field, value in head.fields] == list(first.fields)


def test_a_name_that_takes_the_place_of_one_that_is_gone_is_looked_at_anew() -> None:
    """The memory of a name that nobody holds is given to the next one: being known must not outlive the object."""
    for number in range(2000):
        names = [fresh(b"content-length"), fresh(b"x-%012d" % number), fresh(b"date"), fresh(b"a-%02d" % (number % 90))]
        heads = [checked(200, [(name, b"7")]) for name in names]
        assert [head.content_length for head in heads] == [7, -1, -1, -1]
        assert [head.has_date for head in heads] == [False, False, True, False]
        assert "is not a token" in refused([(fresh(b"bad:%011d" % number), b"7")])
        del names, heads


def test_a_refused_name_is_refused_again() -> None:
    for name in (b"a b", b"", b"a\r\nb"):
        for _ in range(3):
            refused([(name, b"v")])
            refused([(fresh(name), b"v")])


def test_the_same_names_may_be_used_by_two_threads_at_once() -> None:
    started = threading.Barrier(2, timeout=10)
    wrong: list[object] = []

    def check(own: int) -> None:
        started.wait()
        for number in range(3000):
            name = SPECIAL[(number + own) % len(SPECIAL)]
            head = checked(200, [(name, b"1"), (fresh(b"x-%d" % number), b"2")])
            expected = (name == b"date", name == b"server", 1 if name == b"content-length" else -1)
            if (head.has_date, head.has_server, head.content_length) != expected:
                wrong.append((name, facts(head)))

    threads = [threading.Thread(target=check, args=(own,)) for own in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class Pair:
    """A header that runs Python code while it is unpacked."""

    def __init__(self, name: bytes, value: bytes) -> None:
        self.pair = (name, value)

    def __iter__(self) -> Iterator[bytes]:
        encoded(checked(200, [(b"inner", b"x")]))
        return iter(self.pair)


def test_encoding_may_happen_while_a_pair_is_unpacked() -> None:
    assert block([(b"a", b"1"), Pair(b"b", b"2"), (b"c", b"3")]) == b"a: 1\r\nb: 2\r\nc: 3\r\n"


def test_two_threads_do_not_mix_their_heads() -> None:
    """Two servers in one process: a switch of threads between two headers is like encoding within encoding."""
    turn = threading.Barrier(2, timeout=10)
    blocks: dict[bytes, bytes] = {}

    def headers(own: bytes) -> Iterator[tuple[bytes, bytes]]:
        for _ in range(20):
            turn.wait()
            yield b"x", own

    def answer(own: bytes) -> None:
        blocks[own] = block(headers(own))

    threads = [threading.Thread(target=answer, args=(own,)) for own in (b"one", b"two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blocks == {own: (b"x: " + own + b"\r\n") * 20 for own in (b"one", b"two")}


# What h11 reads differs from what we write in two known ways: white space around a value is no part of it (RFC 9110
# 5.5), and h11 refuses VT and FF. No such values are generated, nor other control characters, which nobody sends.
WELL_USED = [f"x-{number}".encode() for number in range(100)]  # more than are known at a time
name_strategy = st.one_of(
    st.text(TCHARS, min_size=1, max_size=30).map(str.encode),
    st.sampled_from(WELL_USED),
    st.sampled_from(WELL_USED).map(fresh),
)
value_strategy = st.lists(st.sampled_from([c for c in range(0x20, 0x100) if c != 0x7F] + [9]), max_size=40).map(
    lambda codes: bytes(codes).strip(b" \t")
)
OURS = {b"transfer-encoding", b"keep-alive", b"proxy-connection", b"upgrade", b"te", b"trailer", b"connection"}
NAMED = [*sorted(OURS), b"Date", b"Server", b"Content-Type"]
headers_strategy = st.lists(
    st.one_of(
        st.tuples(name_strategy, value_strategy),
        st.tuples(st.sampled_from(NAMED), value_strategy),
        st.tuples(st.sampled_from(NAMED).map(fresh), value_strategy),
    ),
    max_size=8,
)


@given(headers_strategy, st.integers(200, 999), st.one_of(st.none(), st.integers(0, 10**18 - 1)))
def test_h11_reads_back_what_is_accepted(headers: Headers, status: int, length: int | None) -> None:
    headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
    if length is not None:
        headers.append((b"Content-Length", b"%d" % length))
    head = checked(status, headers)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(encoded(head) + b"\r\n")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert (response.status_code, response.http_version) == (status, b"1.1")
    kept = [(name.lower(), value) for name, value in headers if name.lower() not in OURS]
    if status in (204, 205):
        kept = [pair for pair in kept if pair[0] != b"content-length"]
    if status == 205:
        kept, length = [*kept, (b"content-length", b"0")], 0
    assert list(response.headers) == kept
    assert head.content_length == (-1 if length is None else length)
    assert head.has_date == any(name.lower() == b"date" for name, _ in headers)
    assert head.has_server == any(name.lower() == b"server" for name, _ in headers)


@given(headers_strategy, st.integers(0, 8), name_strategy, value_strategy, st.data())
def test_no_injection_gets_through(headers: Headers, at: int, name: bytes, value: bytes, data: st.DataObject) -> None:
    """A break anywhere in any name or value, beside any other headers: nothing is written at all."""
    headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
    bad = data.draw(st.sampled_from([b"\r", b"\n", b"\0", b"\r\n", b"\r\nX: y", b"\r\n\r\n"]))
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, len(name)))
        name = name[:cut] + bad + name[cut:]
    else:
        cut = data.draw(st.integers(0, len(value)))
        value = value[:cut] + bad + value[cut:]
    headers.insert(at, (name, value))
    refused(headers)
    with pytest.raises(LocalProtocolError):
        checked(200, None, headers)


def kept(headers: Headers) -> bool:
    """Whether the head of a response with ``headers`` is kept for the next one that sends the same objects."""
    return checked(200, headers) is checked(200, list(headers))


def test_a_head_of_constants_is_made_once() -> None:
    assert kept([(b"content-type", b"text/plain"), (b"content-length", b"13")])


def test_what_was_made_for_one_response_is_not_kept() -> None:
    """Memory must not hold the values of past responses."""
    value = bytes([65]) * 20
    head = checked(200, [(b"x-kept", value)])
    assert head.fields == ((b"x-kept", value),)
    del head
    assert sys.getrefcount(value) == 2


@pytest.mark.parametrize("pair", [(b"Set-Cookie", b"id=1"), (b"location", b"/?token=1"), (b"x", b"v" * 2000)])
def test_nothing_that_may_hold_a_secret_and_nothing_large_is_kept(pair: tuple[bytes, bytes]) -> None:
    assert not kept([pair])


def test_the_same_pairs_with_another_status_or_other_defaults_are_another_head() -> None:
    pairs = [(b"content-type", b"text/plain"), (b"content-length", b"0")]
    first = checked(200, pairs)
    assert checked(204, pairs).fields == ((b"content-type", b"text/plain"),)
    assert checked(200, pairs, [(b"x", b"1")]).fields[-1] == (b"x", b"1")
    assert checked(200, pairs[:1]).content_length == -1
    assert checked(200, pairs).fields == first.fields
    for status in (10**30, True, 200.0):
        with pytest.raises(LocalProtocolError):
            checked(status, pairs)  # type: ignore[arg-type]

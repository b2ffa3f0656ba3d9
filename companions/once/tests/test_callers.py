"""One caller never gets the answer of another, and one who signs each request is not several."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companions.once.tests.calls import Call, Headers, Setting, call, http_scope, until
from lastcall_once._record import replace
from lastcall_once._types import Receive, Scope, Send
from lastcall_once.callers import ANONYMOUS, SESSION_COOKIES, CallerRules
from lastcall_once.fingerprint import hash_of_caller
from lastcall_once.metrics import MemoryCounters
from lastcall_once.records import State
from testing.loop import VirtualLoop

Run = Callable[[Callable[[Setting], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run() -> Iterator[Run]:
    loop = VirtualLoop()

    async def begin(body: Callable[[Setting], Coroutine[Any, Any, None]]) -> None:
        await body(Setting(loop))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    yield lambda body: loop.run(begin(body))
    assert loop.errors == []
    loop.finish()


def caller(*headers: tuple[str, str], rules: CallerRules | None = None) -> str | None:
    scope = http_scope(headers=[(name.encode(), value.encode("latin-1")) for name, value in headers])
    return (rules or CallerRules()).caller_of(scope)


def context(*headers: tuple[str, str], rules: CallerRules | None = None, key: str = "http:-:k") -> str:
    scope = http_scope(headers=[(name.encode(), value.encode("latin-1")) for name, value in headers])
    return (rules or CallerRules()).context_of(scope, key)


# -- who it is ---------------------------------------------------------------------------------------------------------

VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)
WORDS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=5)
CREDENTIALS = st.one_of(
    VALUES,
    st.builds("Bearer {}".format, VALUES),
    st.builds("Basic {}".format, VALUES),
    st.builds("DPoP {}".format, VALUES),
    st.builds('Digest username="{}", response="{}"'.format, WORDS, WORDS),
    st.builds('Signature keyId="{}",signature="{}"'.format, WORDS, WORDS),
)
REQUESTS = st.lists(
    st.one_of(
        st.tuples(st.just("authorization"), CREDENTIALS),
        st.tuples(st.just("x-api-key"), VALUES),
        st.tuples(st.just("api-key"), VALUES),
    ),
    max_size=3,
)


def who(headers: Sequence[tuple[str, str]]) -> object:
    """What the rules come to, said in another way: equal if and only if two requests are one caller's."""
    found: list[tuple[str, ...]] = []
    for name, value in headers:
        scheme = value.partition(" ")[0]
        if name == "authorization" and scheme in ("Digest", "Signature") and '"' in value:
            found.append((name, scheme, value.split('"')[1]))
        else:
            found.append((name, value))
    order = {"authorization": 0, "api-key": 1, "x-api-key": 2}
    return tuple(sorted(found, key=lambda one: order[one[0]]))


@given(REQUESTS, REQUESTS)
def test_two_requests_are_one_callers_only_if_all_that_says_who_is_the_same(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    assert (caller(*one) == caller(*other)) is (who(one) == who(other))
    assert (caller(*one) == ANONYMOUS) is (one == [])


@given(REQUESTS, VALUES)
def test_what_is_kept_of_a_caller_is_a_digest(headers: list[tuple[str, str]], session: str) -> None:
    found = [caller(*headers), context(*headers, ("cookie", f"sid={session}"), ("host", "bank.example"))]
    for text in found:
        assert text == ANONYMOUS or (text is not None and len(text) == 32 and int(text, 16) >= 0)


AWS = (
    "AWS4-HMAC-SHA256 Credential={id}/{date}/us-east-1/execute-api/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature={mark}"
)
SIGNED = {
    "aws": AWS,
    "aws, no spaces": AWS.replace(", ", ","),
    "sigv4a": "AWS4-ECDSA-P256-SHA256 Credential={id}/{date}/s3/aws4_request, SignedHeaders=host, Signature={mark}",
    "digest": 'Digest username="{id}", realm="a, b", nonce="{mark}", uri="/", nc={mark}, qop=auth, response="{mark}"',
    "digest, unicode": 'Digest username*=UTF-8\'\'{id}, realm="r", nonce="{mark}", response="{mark}"',
    "signature": 'Signature keyId="{id}",algorithm="hs2019",headers="(request-target) date",signature="{mark}"',
    "oauth": (
        'OAuth realm="r", oauth_consumer_key="app", oauth_token="{id}", oauth_nonce="{mark}", '
        'oauth_timestamp="{mark}", oauth_signature="a%2Bb{mark}%3D"'
    ),
    "oauth, no token": 'OAuth oauth_consumer_key="{id}", oauth_nonce="{mark}", oauth_signature="{mark}"',
    "a quote in a name": 'Digest username="{id}\\", nonce=\\"", nonce="{mark}"',
    "lower case": 'digest USERNAME="{id}", response="{mark}"',
}


@pytest.mark.parametrize("form", SIGNED.values(), ids=SIGNED)
def test_who_signs_each_request_is_one_caller(form: str) -> None:
    def by(**words: str) -> str | None:
        return caller(("authorization", form.format(**words)))

    first = by(id="one", mark="1", date="20261129")
    assert by(id="one", mark="2", date="20261130") == first  # it was midnight
    assert by(id="two", mark="1", date="20261129") != first
    assert first != hash_of_caller(form.format(id="one", mark="1", date="20261129"))


def test_one_application_of_oauth_has_many_users() -> None:
    form = 'OAuth oauth_consumer_key="{}", oauth_token="{}", oauth_nonce="{}"'
    one, two, three = (
        caller(("authorization", form.format(*words))) for words in (("app", "u1", 1), ("app", "u2", 1), ("b", "u1", 1))
    )
    assert len({one, two, three}) == 3


def test_a_dpop_token_says_who_and_its_proof_does_not() -> None:
    one = caller(("authorization", "DPoP token"), ("dpop", "proof 1"))
    assert caller(("authorization", "DPoP token"), ("dpop", "proof 2")) == one
    assert caller(("authorization", "DPoP another"), ("dpop", "proof 1")) != one


@pytest.mark.parametrize(
    "form",
    [
        "Digest {mark}",
        'Digest nonce="{mark}"',
        'Digest username="", nonce="{mark}"',
        'Digest username="a", username="b", nonce="{mark}"',
        'Digest username="a, nonce={mark}',
        'Digest username="a"b, nonce="{mark}"',
        'Digest username="a" "{mark}"',
        "AWS4-HMAC-SHA256 Credential=noslash, Signature={mark}",
        "AWS4-HMAC-SHA256 Signature={mark}",
        "Signature signature={mark}",
        'OAuth oauth_nonce="{mark}"',
        "Bearer username=a {mark}",
        'Hawk id="a", mac="{mark}"',
    ],
)
def test_a_signer_that_cannot_be_read_is_nobody_else(form: str) -> None:
    """Then all of the header counts: better twice than somebody else's answer."""
    one, two = (caller(("authorization", form.format(mark=mark))) for mark in "12")
    assert one != two
    assert ANONYMOUS not in (one, two)


@given(st.binary(max_size=60))
def test_no_bytes_break_it(value: bytes) -> None:
    for scheme in (b"", b"Digest ", b"OAuth ", b"AWS4-HMAC-SHA256 "):
        scope = http_scope(headers=[(b"authorization", scheme + value), (b"cookie", value), (b"host", value)])
        found = CallerRules().caller_of(scope)
        assert found is None or len(found) in (1, 32)
        assert len(CallerRules().context_of(scope, "k")) == 32


def test_nobody() -> None:
    assert caller() == ANONYMOUS
    assert caller(("cookie", "theme=dark")) is None
    # An empty header names nobody.
    assert caller(("authorization", " "), ("x-api-key", "")) == ANONYMOUS
    assert caller(("authorization", ""), ("cookie", "id=1")) is None
    assert caller(("x-api-key", "a"), ("cookie", "id=1")) == caller(("x-api-key", "a"))


def test_headers_of_ones_own() -> None:
    rules = CallerRules(["X-Tenant", "X-User"])
    one = caller(("x-tenant", "a"), ("x-user", "b"), rules=rules)
    assert one == caller(("x-user", "b"), ("x-tenant", "a"), rules=CallerRules(["x-user", "x-tenant"]))
    assert one != caller(("x-tenant", "b"), ("x-user", "a"), rules=rules)
    assert caller(("x-api-key", "a"), rules=rules) == ANONYMOUS


# -- from where --------------------------------------------------------------------------------------------------------


@given(WORDS, WORDS, st.sampled_from(SESSION_COOKIES), st.sampled_from(["", "__Host-", "__Secure-"]))
def test_a_session_counts_and_other_cookies_do_not(one: str, other: str, name: str, prefix: str) -> None:
    first = context(("cookie", f"theme=a; {prefix}{name}={one}"), ("host", "h"))
    assert (first == context(("cookie", f"{prefix}{name}={other}; lang=b"), ("host", "h"))) is (one == other)
    assert first == context(("cookie", "a=b"), ("cookie", f"{prefix}{name}={one}"), ("host", "h"))
    assert first != context(("cookie", "theme=a"), ("host", "h"))
    assert first != context(("cookie", f"x{prefix}{name}={one}"), ("host", "h"))


def test_sessions_in_order() -> None:
    both = context(("cookie", "sid=1; session=2"))
    assert both == context(("cookie", "session=2; sid=1"))
    assert both != context(("cookie", "sid=2; session=1"))
    # Of two with one name, which one counts is the application's.
    assert context(("cookie", "sid=1; sid=2")) != context(("cookie", "sid=2; sid=1"))
    own = CallerRules(session_cookies=["me"])
    assert context(("cookie", "sid=1"), rules=own) == context(("cookie", "sid=2"), rules=own)
    assert context(("cookie", "me=1"), rules=own) != context(("cookie", "me=2"), rules=own)
    none = CallerRules(session_cookies=[])
    assert context(("cookie", "sid=1"), rules=none) == context(("cookie", "sid=2"), rules=none)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("shop.example", "SHOP.example:8443", True),
        ("shop.example:", "shop.example", True),
        ("[::1]:80", "[::1]", True),
        ("[::1]", "[::2]", False),
        ("::1", "::2", False),
        ("a.example", "b.example", False),
        ("a.example:b", "a.example", False),
        ("", "a.example", False),
    ],
)
def test_hosts(one: str, other: str, same: bool) -> None:
    assert (context(("host", one)) == context(("host", other))) is same


def test_a_context_does_not_tell_that_two_records_have_the_same() -> None:
    assert context(("cookie", "sid=1"), key="a") != context(("cookie", "sid=1"), key="b")


@pytest.mark.parametrize(
    "options",
    [
        {"api_key_headers": "X-API-Key"},
        {"session_cookies": "sid"},
        {"api_key_headers": ["a b"]},
        {"session_cookies": [""]},
        {"session_cookies": [b"sid"]},
    ],
)
def test_names_that_are_none(run: Run, options: dict[str, Any]) -> None:
    async def body(at: Setting) -> None:
        with pytest.raises(ValueError, match=r"_headers|_cookies"):
            at.guard(**options)

    run(body)


# -- what they get -----------------------------------------------------------------------------------------------------


def headers(**said: str) -> Headers:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in said.items()]


def test_two_api_keys_are_two_executions(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        for name in ("x_api_key", "api_key"):
            one, two, again = [await call(app, headers=headers(**{name: key})) for key in ("a", "b", "a")]
            assert one.body != two.body
            assert again.replayed
            assert again.body == one.body
        with_token = await call(app, authorization="Bearer t", headers=headers(x_api_key="a"))
        assert not with_token.replayed
        assert at.handler.runs == 5

    run(body)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({"host": "a.example"}, {"host": "b.example"}),
        ({"host": "a.example"}, {}),
        ({"authorization": "Basic gateway", "cookie": "sid=1"}, {"authorization": "Basic gateway", "cookie": "sid=2"}),
        ({"authorization": "Basic gateway", "cookie": "sid=1"}, {"authorization": "Basic gateway"}),
        ({"authorization": "Basic gateway"}, {"authorization": "Basic gateway", "cookie": "__Host-sid=1"}),
        ({"x_api_key": "app", "cookie": "JSESSIONID=1"}, {"x_api_key": "app", "cookie": "JSESSIONID=2"}),
    ],
)
@pytest.mark.parametrize("status", [200, 503, 500])
def test_from_elsewhere_is_neither_answered_nor_run(
    run: Run, first: dict[str, str], other: dict[str, str], status: int
) -> None:
    async def body(at: Setting) -> None:
        figures = MemoryCounters()
        app = at.guard(metrics=figures, wait=5)
        at.handler.go.clear()
        at.handler.status = status
        running = Call(app, headers=headers(**first))
        await until(lambda: at.handler.runs)
        for _ in range(2):  # while it runs, and when it is done
            refused = await call(app, headers=headers(**other))
            assert (refused.status, refused.code) == (409, "once_other_caller")
            assert b"run 1" not in refused.body
            at.handler.go.set()
            await running.task
        another_request = await call(app, headers=headers(**other), body=b"[]")
        assert another_request.code == "once_other_caller"
        assert at.handler.runs == 1
        again = await call(app, headers=headers(**first))
        assert again.replayed is (status == 200)
        assert (await call(app, headers=headers(**first), body=b"[]")).code == "once_mismatch"

    run(body)


def test_other_cookies_and_ports_are_no_other_caller(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        await call(app, authorization="Bearer t", headers=headers(host="a.example", cookie="seen=1; sid=5"))
        again = await call(app, authorization="Bearer t", headers=headers(host="A.example:80", cookie="sid=5; seen=2"))
        assert again.replayed

    run(body)


def test_a_caller_function_is_all_that_counts(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(caller=lambda scope: "me")
        await call(app, authorization="Bearer 1", headers=headers(host="a", cookie="sid=1", x_api_key="1"))
        again = await call(app, authorization="Bearer 2", headers=headers(host="b", cookie="sid=2", x_api_key="2"))
        assert again.replayed

    run(body)


def test_a_record_of_an_anonymous_caller_gives_no_cookie_away(run: Run) -> None:
    async def body(at: Setting) -> None:
        async def login(scope: Scope, receive: Receive, send: Send) -> None:
            fields = [(b"Set-Cookie", b"session=topsecret"), (b"set-cookie", b"b=c"), (b"x", b"y")]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": b"hello"})

        app = at.guard(login)
        first, again = await call(app), await call(app)
        assert (b"Set-Cookie", b"session=topsecret") in first.headers
        assert again.replayed
        assert again.headers == [(b"x", b"y"), (b"idempotent-replayed", b"true")]
        assert b"topsecret" not in ((await at.record()).result or b"")
        assert [(await call(app, authorization="t")).headers[0] for _ in range(2)] == [first.headers[0]] * 2
        named = at.guard(login, caller=lambda scope: "-", namespace="named")
        assert [(await call(named)).headers[0] for _ in range(2)] == [first.headers[0]] * 2

    run(body)


def test_nothing_that_says_who_it_is_gets_into_the_store(run: Run) -> None:
    async def body(at: Setting) -> None:
        secrets = {"cookie": "sid=topsecret1", "x_api_key": "topsecret2", "host": "topsecret3.example"}
        await call(at.guard(), authorization="Bearer topsecret4", headers=headers(**secrets))
        await call(at.guard(), "2", authorization='Digest username="topsecret5"', headers=headers(**secrets))
        assert len(await at.store.scan()) == 2
        for record in await at.store.scan():
            assert "topsecret" not in repr(record)

    run(body)


# -- records of the releases before ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (State.DONE, "once_other_caller"),
        (State.LEASED, "once_in_flight"),
        (State.FAILED, None),
        (State.UNKNOWN, None),
    ],
)
def test_a_record_that_does_not_say_whose_it_is(run: Run, state: State, code: str | None) -> None:
    """What is done is not replayed, as its caller may have been another; everything else is as it was."""

    async def body(at: Setting) -> None:
        app = at.guard()
        for key, token in (("anonymous", None), ("bearer", "Bearer t")):
            await call(app, key, authorization=token)
            record = await at.record(key)
            caller = "-" if token is None else hash_of_caller(token)
            assert record.key == f"http:{caller}:{key}"
            request, at_sign, _ = record.fingerprint.partition("@")
            assert at_sign
            until_then = at.loop.time() + 30
            before = replace(record, fingerprint=request, state=state, lease_until=until_then)
            at.store._records[record.key] = before
            made = await call(app, key, authorization=token, headers=headers(x_forwarded_for="1"))
            assert not made.replayed
            if code is not None:
                assert made.code == code
            else:
                assert made.status == 200
                assert (await call(app, key, authorization=token)).code == "once_other_caller"
            at.store._records[record.key] = before
            assert (await call(app, key, authorization=token, body=b"[]")).code == "once_mismatch"
        assert at.handler.runs == (2 if code else 4)

    run(body)


def test_but_with_a_caller_function_it_does(run: Run) -> None:
    async def body(at: Setting) -> None:
        await call(at.guard(caller=lambda scope: "me"))
        record = await at.record()
        assert (record.key, len(record.fingerprint)) == (f"http:{hash_of_caller('me')}:k", 64)

    run(body)

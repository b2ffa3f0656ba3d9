"""The application in memory: what it refuses and how, the drain, a store that fails, time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from companions.once.tests.service.requests import Kit, with_kit
from lastcall.drain.ladder import Phase
from lastcall.notice.notice import DrainNotice
from lastcall.notice.signal import DrainSignal
from lastcall_once._types import Message
from lastcall_once.service import keys
from lastcall_once.service.app import Service
from lastcall_once.service.faults import CODES
from lastcall_once.service.routes import ROUTES

JSON = [(b"content-type", b"application/json")]


@pytest.mark.parametrize(
    ("method", "target", "raw", "code"),
    [
        ("GET", "/", b"", "not_found"),
        ("GET", "/v2/me", b"", "not_found"),
        ("GET", "/v1/runs/", b"", "not_found"),
        ("GET", "/v1/runs/%ff", b"", "not_found"),
        ("GET", "/v1/runs/a/b", b"", "not_found"),
        ("GET", "/v1/check-lock", b"", "method_not_allowed"),
        ("BREW", "/v1/me", b"", "method_not_allowed"),
        ("POST", "/openapi.json", b"", "method_not_allowed"),
        ("POST", "/v1/check-lock", b"", "invalid_json"),
        ("POST", "/v1/check-lock", b"{", "invalid_json"),
        ("POST", "/v1/check-lock", b'{"key": NaN}', "invalid_json"),
        ("POST", "/v1/check-lock", b'{"key": 1e999}', "invalid_json"),
        ("POST", "/v1/check-lock", b'{"key": ' + b"9" * 5000 + b"}", "invalid_json"),
        ("POST", "/v1/check-lock", b"\xff", "invalid_json"),
        ("POST", "/v1/check-lock", b"[" * 200_000, "invalid_json"),
        ("POST", "/v1/check-lock", b"[]", "invalid_request"),
        ("POST", "/v1/check-lock", b'{"key": "a\\ud800"}', "invalid_request"),
        ("POST", "/v1/check-lock", b'{"key": "a", "tll": 1}', "invalid_request"),
        ("POST", "/v1/check-lock", b'{"key": "a", "metadata": ' + b'{"a":' * 40 + b"1" + b"}" * 41, "invalid_request"),
        ("POST", "/v1/check-lock", b'{"key": "' + b"a" * (1 << 20) + b'"}', "too_large"),
        ("POST", "/v1/ai/run", b"{}", "invalid_request"),
        ("POST", "/v1/ai/run", b'{"key": "a", "agent_id": "b", "tool": "c"}', "invalid_request"),
        ("POST", "/v1/me/notifications", b"{}", "invalid_request"),
        ("POST", "/v1/policies/a", b'{"agent_id": "b"}', "invalid_request"),
        ("POST", "/v1/policies/a%20b", b"{}", "invalid_request"),
        ("POST", "/v1/policies/a/from-template", b'{"template": "none"}', "invalid_request"),
        ("GET", "/v1/ai/status", b"", "invalid_request"),
        ("GET", "/v1/ai/status?key=%00", b"", "invalid_request"),
        ("GET", "/v1/ai/status?key=%ff", b"", "invalid_request"),
        ("GET", "/v1/ai/status?" + "a=1&" * 60, b"", "invalid_request"),
        ("GET", "/v1/events?limit=0", b"", "invalid_request"),
        ("GET", "/v1/events?limit=all", b"", "invalid_request"),
        ("GET", "/v1/events?limit=" + "1" * 10_000, b"", "invalid_request"),
        ("GET", "/v1/metrics?from_day=2026-13-01", b"", "invalid_request"),
        ("GET", "/v1/metrics?from_day=2026-01-02&to_day=2026-01-01", b"", "invalid_request"),
        ("GET", "/v1/metrics?from_day=0001-01-01&to_day=2026-01-01", b"", "invalid_request"),
        ("GET", "/v1/tools/none", b"", "not_found"),
    ],
)
def test_what_is_refused(method: str, target: str, raw: bytes, code: str) -> None:
    async def test(kit: Kit) -> None:
        told = await kit.ask(method, target, raw=raw, headers=JSON)
        assert (told.status, told.code) == (CODES[code][0], code)
        if code == "invalid_request":
            assert told.json["detail"]["errors"][0]["expected"]

    with_kit(test)


def test_what_it_does_not_say_it_allows() -> None:
    async def test(kit: Kit) -> None:
        assert (await kit.ask("PUT", "/v1/policies")).headers[b"allow"] == b"GET, POST, HEAD"
        assert (await kit.ask("GET", "/v1/check-lock")).headers[b"allow"] == b"POST"

    with_kit(test)


def test_a_body_is_bounded_however_it_comes() -> None:
    async def test(kit: Kit) -> None:
        said = await kit.ask("POST", "/v1/check-lock", headers=[(b"content-length", b"9" * 30)], raw=b"")
        assert said.code == "too_large"
        pieces = await kit.ask("POST", "/v1/check-lock", raw=[b" " * 600_000, b" " * 600_000, b"{}"])
        assert pieces.code == "too_large"
        fits = {"key": "k", "metadata": {"text": "x" * 1_000_000}}
        assert (await kit.ask("POST", "/v1/ai/lease", fits)).status == 200

    with_kit(test)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/v1/events", {"run_id": "r", "type": "t"}),
        ("/v1/tools", {"name": "t"}),
        ("/v1/policies", {"agent_id": "a"}),
    ],
)
def test_what_is_listed_by_the_thousand_is_small(target: str, body: dict[str, Any]) -> None:
    """A bearer of a key could make the server read a gigabyte at once."""

    async def test(kit: Kit) -> None:
        policy = target == "/v1/policies"
        many = [f"{number:0100}" for number in range(1000)]
        large = {**body, "blocked_tools": many} if policy else {**body, "data": {"text": "é" * 12_000}}
        assert (await kit.ask("POST", target, large)).code == "too_large"
        fits = {**body, "blocked_tools": many[:500]} if policy else {**body, "data": {"text": "é" * 10_000}}
        assert (await kit.ask("POST", target, fits)).status == 200
        assert len((await kit.ask("GET", target)).json["items"]) == 1

    with_kit(test)


def test_the_longest_reason_is_no_hindrance() -> None:
    """It grows twelvefold as it is kept, and the lease is given back by then."""

    async def test(kit: Kit) -> None:
        longest = {"key": "\U0001f600" * 255, "reason": "\U0001f600" * 4096}
        lease = (await kit.ask("POST", "/v1/ai/lease", {"key": longest["key"]})).json["lease_id"]
        assert (await kit.ask("POST", "/v1/ai/cancel", {**longest, "lease_id": lease})).json["status"] == "cancelled"
        assert (await kit.ask("POST", "/v1/agents/a/disable", {"reason": longest["reason"]})).status == 200

    with_kit(test)


def test_an_event_cannot_say_its_number() -> None:
    async def test(kit: Kit) -> None:
        told = (await kit.ask("POST", "/v1/events", {"run_id": "r", "type": "t", "number": 99})).json
        assert [item["number"] for item in (await kit.ask("GET", "/v1/events")).json["items"]] == [told["number"]]

    with_kit(test)


def test_a_body_is_json() -> None:
    async def test(kit: Kit) -> None:
        for kind, status in ((b"text/plain", 415), (b"application/json; charset=utf-8", 200)):
            assert (
                await kit.ask("POST", "/v1/check-lock", {"key": "k"}, headers=[(b"content-type", kind)])
            ).status == status

    with_kit(test)


def test_a_client_that_leaves_gets_nothing() -> None:
    async def test(kit: Kit) -> None:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/check-lock", "query_string": b""}
        await kit.service(scope | {"headers": [(b"authorization", f"Bearer {kit.key}".encode())]}, receive, send)
        assert sent == []

    with_kit(test)


def test_head_is_get_without_a_body() -> None:
    async def test(kit: Kit) -> None:
        told = await kit.ask("HEAD", "/v1/me")
        assert (told.status, told.body) == (200, b"")
        assert int(told.headers[b"content-length"]) > 0

    with_kit(test)


def test_request_ids() -> None:
    async def test(kit: Kit) -> None:
        given = [(b"x-request-id", b"mine-1")]
        assert (await kit.ask("GET", "/v1/me", headers=given)).headers[b"x-request-id"] == b"mine-1"
        assert (await kit.ask("GET", "/none", headers=given)).headers[b"x-request-id"] == b"mine-1"
        made = {
            (await kit.ask("GET", "/v1/me", headers=[(b"x-request-id", bad)])).headers[b"x-request-id"]
            for bad in (b"a b", b"x" * 200)
        }
        assert len(made) == 2
        assert all(len(each) == 16 for each in made)

    with_kit(test)


def test_a_mounted_service_finds_its_paths() -> None:
    async def test(kit: Kit) -> None:
        assert (await kit.ask("GET", "/once/v1/me", root_path="/once")).status == 200
        assert (await kit.ask("GET", "/v1/me", raw_path=None)).status == 200

    with_kit(test)


# -- keys ------------------------------------------------------------------------------------------------------------


def test_keys_that_are_none() -> None:
    async def test(kit: Kit) -> None:
        told = await kit.ask("GET", "/v1/me", key=None)
        assert (told.status, told.code) == (401, "api_key_required")
        assert told.headers[b"www-authenticate"] == b"Bearer"
        altered = kit.key[:-1] + ("A" if kit.key[-1] != "A" else "B")
        other = f"once_{'0' * 12}_{kit.key.split('_', 2)[2]}"
        for wrong in (altered, other, kit.key + "x", kit.key.upper(), "x", "é"):
            told = await kit.ask("GET", "/v1/me", key=wrong)
            assert (told.status, told.code) == (401, "api_key_invalid")
        basic = [(b"authorization", b"Basic " + kit.key.encode())]
        assert (await kit.ask("GET", "/v1/me", key=None, headers=basic)).status == 401
        twice = [(b"authorization", b"Bearer " + kit.key.encode())]
        assert (await kit.ask("GET", "/v1/me", headers=twice)).status == 401

    with_kit(test)


def test_there_is_no_way_around_the_key() -> None:
    async def test(kit: Kit) -> None:
        for route in ROUTES:
            path = route.path.replace("{", "").replace("}", "")
            for key, code in ((None, "api_key_required"), ("x", "api_key_invalid")):
                told = await kit.ask(route.method, path, raw=b"{", key=key)
                assert (route.path, told.status, told.code) == (route.path, 401, code)

    with_kit(test)


def test_a_key_is_stored_as_a_hash_only() -> None:
    async def test(kit: Kit) -> None:
        secret = kit.key.split("_", 2)[2]
        await kit.ask("GET", "/v1/me")
        stored = await kit.service.documents.list_documents(keys.COLLECTION)
        assert len(stored) == 1
        assert secret not in stored[0].data
        assert secret not in str(vars(kit.service._keys))
        other = await kit.new_key(account="x")
        salts = {key.salt for key in await keys.known(kit.service.documents)}
        assert len(salts) == 2
        assert other != kit.key

    with_kit(test)


def test_a_revocation_acts_within_seconds() -> None:
    now = [0.0]

    async def test(kit: Kit) -> None:
        ring = kit.service._keys
        ring._clock = lambda: now[0]
        assert (await kit.ask("GET", "/v1/me")).status == 200
        identity = kit.key.split("_")[1]
        assert await keys.revoke(kit.service.documents, identity, now=1.0) is not None
        now[0] = keys.REMEMBERED_SECONDS - 0.001
        assert (await kit.ask("GET", "/v1/me")).status == 200
        now[0] = keys.REMEMBERED_SECONDS
        told = await kit.ask("GET", "/v1/me")
        assert (told.status, told.code) == (403, "api_key_revoked")
        assert await keys.revoke(kit.service.documents, "0" * 12, now=1.0) is None
        assert keys.REMEMBERED_SECONDS <= 5

    with_kit(test)


# -- the drain, and a store that fails ---------------------------------------------------------------------------------


def draining() -> DrainNotice:
    signal = DrainSignal(lambda: 0.0)
    notice = DrainNotice(signal)
    signal.state.phase = Phase.DRAINING
    signal.give(10.0, 10.0)
    return notice


def test_a_drain_begins_nothing_and_ends_everything() -> None:
    async def test(kit: Kit) -> None:
        held = (await kit.lease("held"))["lease_id"]
        bad = (await kit.lease("bad"))["lease_id"]
        back = (await kit.lease("back"))["lease_id"]
        await kit.lock("seen")
        kit.notice = draining()
        for path, body in (
            ("check-lock", {"key": "new"}),
            ("ai/lease", {"key": "new"}),
            ("ai/run", {"key": "new"}),
            ("ai/run", {"agent_id": "a", "tool": "t"}),
        ):
            told = await kit.ask("POST", f"/v1/{path}", body)
            assert (told.status, told.code, told.headers[b"retry-after"]) == (503, "draining", b"1")
        assert (await kit.lock("seen")).json["status"] == "duplicate"
        assert (await kit.lease("held"))["status"] == "in_progress"
        for path, body in (
            ("extend", {"key": "held", "lease_id": held}),
            ("complete", {"key": "held", "lease_id": held, "result": {"n": 1}}),
            ("fail", {"key": "bad", "lease_id": bad, "error_code": "x"}),
            ("cancel", {"key": "back", "lease_id": back}),
        ):
            assert (await kit.ask("POST", f"/v1/ai/{path}", body)).status == 200
        assert (await kit.ask("GET", "/v1/ai/result?key=held")).json["result"] == {"n": 1}
        assert (await kit.lease("held"))["status"] == "completed"
        kit.notice = None
        assert (await kit.lock("new")).json["status"] == "locked", "the refusal has left nothing behind"

    with_kit(test)


def test_a_store_that_fails_is_503_everywhere(caplog: pytest.LogCaptureFixture) -> None:
    async def test(kit: Kit) -> None:
        lease_id = (await kit.lease("k"))["lease_id"]
        kit.store.down = True
        for method, target, body in (
            ("POST", "/v1/check-lock", {"key": "x"}),
            ("POST", "/v1/ai/lease", {"key": "x"}),
            ("POST", "/v1/ai/complete", {"key": "k", "lease_id": lease_id}),
            ("POST", "/v1/ai/run", {"agent_id": "a", "tool": "t"}),
            ("GET", "/v1/ai/status?key=k", None),
            ("GET", "/v1/usage", None),
            ("GET", "/v1/policies", None),
            ("POST", "/v1/agents/a/disable", None),
        ):
            told = await kit.ask(method, target, body)
            assert (told.status, told.code, told.headers[b"retry-after"]) == (503, "store_unavailable", b"1")
        kit.store.down = False
        assert (await kit.ask("POST", "/v1/ai/complete", {"key": "k", "lease_id": lease_id})).status == 200

    with caplog.at_level(logging.WARNING, "lastcall.once"):
        with_kit(test)
    assert any("it is down" in line for line in caplog.messages)
    assert not any("once_" in line for line in caplog.messages), "keys are never logged"


def test_a_permission_that_could_not_be_recorded_is_none() -> None:
    async def test(kit: Kit) -> None:
        documents: Any = kit.service.documents
        whole = documents.append

        async def failing(*_: Any, **__: Any) -> None:
            kit.store.down = True
            kit.store.now()

        documents.append = failing
        told = await kit.ask("POST", "/v1/ai/run", {"agent_id": "a", "tool": "t"})
        assert told.code == "store_unavailable"
        documents.append, kit.store.down = whole, False
        kit.clock.now += 20  # its lease could not be given back
        assert (await kit.tool("a", "t"))["decision"] == "allowed"

    with_kit(test)


def test_startup_fails_without_a_store() -> None:
    async def run() -> list[Message]:
        service = Service("sqlite:////nowhere/at/all/once.db")
        words = [{"type": "lifespan.startup"}]
        sent: list[Message] = []

        async def receive() -> Message:
            return words.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        await service({"type": "lifespan"}, receive, send)
        return sent

    sent = asyncio.run(run())
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "/nowhere/at/all/once.db" in sent[0]["message"]


# -- time --------------------------------------------------------------------------------------------------------------


def test_leases_and_results_have_times_of_their_own() -> None:
    async def test(kit: Kit) -> None:
        first = await kit.lease("k")
        assert first["ttl"] == 30
        kit.clock.now += 29
        assert (await kit.lease("k"))["ttl_left"] == 1
        kit.clock.now += 1
        assert (await kit.ask("GET", "/v1/ai/status?key=k")).json["status"] == "expired"
        second = await kit.lease("k", ttl=60)
        assert (second["status"], second["version"]) == ("acquired", 2)
        await kit.ask("POST", "/v1/ai/complete", {"key": "k", "lease_id": second["lease_id"], "result": {"n": 1}})
        kit.clock.now += 999
        assert (await kit.lease("k"))["result"] == {"n": 1}
        kit.clock.now += 1
        assert (await kit.lease("k"))["status"] == "acquired"

    with_kit(test, ttl=1000)


def test_failed_keys_may_be_for_retry() -> None:
    async def test(kit: Kit) -> None:
        lease_id = (await kit.lease("k"))["lease_id"]
        await kit.ask("POST", "/v1/ai/fail", {"key": "k", "lease_id": lease_id, "error_code": "x"})
        assert (await kit.lease("k"))["status"] == "acquired"

    from lastcall_once.records import Policy  # noqa: PLC0415

    with_kit(test, on_failed=Policy.RETRY)


def test_windows_of_limits_and_of_duplicates() -> None:
    async def test(kit: Kit) -> None:
        kit.clock.now -= kit.clock.now % 3600
        policy = {"max_actions_per_hour": 1, "max_spend_usd_per_day": 0.3}
        assert (await kit.ask("POST", "/v1/policies/a", policy)).status == 200
        assert (await kit.tool("a", "t", spend_usd=0.2))["decision"] == "allowed"
        kit.clock.now += 59
        assert (await kit.tool("a", "t", spend_usd=0.2))["decision"] == "dedup"
        kit.clock.now += 1
        assert (await kit.tool("a", "t", spend_usd=0.2))["policy_reason"] == "max_actions_per_hour"
        kit.clock.now += 3600 - 60
        assert (await kit.tool("a", "t", spend_usd=0.2))["policy_reason"] == "max_spend_usd_per_day"
        assert (await kit.tool("a", "t", spend_usd=0.1))["decision"] == "allowed"
        kit.clock.now += 86_400
        assert (await kit.tool("a", "t", spend_usd=0.3))["decision"] == "allowed"

    with_kit(test, dedup_window=60)


def test_parallel_calls_stay_within_the_limits() -> None:
    async def test(kit: Kit) -> None:
        await kit.ask("POST", "/v1/policies/a", {"max_spend_usd_per_day": 1.0})
        calls = [kit.tool("a", "t", args={"n": number}, spend_usd=0.3) for number in range(10)]
        decisions = [found["decision"] for found in await asyncio.gather(*calls)]
        assert sorted(decisions) == ["allowed"] * 3 + ["blocked"] * 7
        same = await asyncio.gather(*(kit.tool("b", "t") for _ in range(10)))
        assert sorted(found["decision"] for found in same) == ["allowed"] + ["dedup"] * 9

    with_kit(test)


def test_json_that_is_hard_to_keep() -> None:
    async def test(kit: Kit) -> None:
        result = {"lone": "\ud800", "nul": "\0", "big": 10**300, "text": "é\u2028"}
        lease = await kit.lease("k", metadata={"run_id": "\ud800", "\udfff": 1})
        told = await kit.ask("POST", "/v1/ai/complete", {"key": "k", "lease_id": lease["lease_id"], "result": result})
        assert told.status == 200
        assert (await kit.ask("GET", "/v1/ai/result?key=k")).json["result"] == result
        assert (await kit.tool("a", "t", args={"run_id": "\udc00", **result}))["allowed"]

    with_kit(test)


def test_statistics_wait_for_a_store_that_is_down() -> None:
    async def test(kit: Kit) -> None:
        await kit.lock("k")
        kit.store.down = True
        await kit.service._core.flush()
        kit.store.down = False
        await kit.lock("k")
        assert (await kit.ask("GET", "/v1/usage")).json["usage"] == 2
        assert (await kit.ask("GET", "/v1/usage")).json["usage"] == 2

    with_kit(test)


def test_statistics_reach_the_store_by_themselves() -> None:
    async def test(kit: Kit) -> None:
        await kit.lock("k")
        assert kit.service._core._timer is not None
        counter = f"a{kit.key.split('_')[1]}/statistic/make/2023-11-14"
        while await kit.service.documents.counts([counter]) != [1]:
            await asyncio.sleep(0.02)

    with_kit(test)


def test_lists_go_page_by_page() -> None:
    async def test(kit: Kit) -> None:
        for agent in "cab":
            assert (await kit.ask("POST", "/v1/policies", {"agent_id": agent})).status == 200
        first = (await kit.ask("GET", "/v1/policies?limit=2")).json
        assert ([item["agent_id"] for item in first["items"]], first["next"]) == (["a", "b"], "b")
        second = (await kit.ask("GET", f"/v1/policies?limit=2&after={first['next']}")).json
        assert ([item["agent_id"] for item in second["items"]], second["next"]) == (["c"], None)

    with_kit(test)


def test_a_tool_may_be_disabled_for_one_agent() -> None:
    async def test(kit: Kit) -> None:
        for scope in ("agent:a", "b"):
            tool = {"name": "t", "scope_id": scope, "enabled": False}
            assert (await kit.ask("POST", "/v1/tools", tool)).status == 200
        reasons = {agent: (await kit.tool(agent, "t"))["policy_reason"] for agent in "abc"}
        assert reasons == {"a": "tool_disabled", "b": "tool_disabled", "c": None}

    with_kit(test)


def test_the_log_names_the_key_that_decided() -> None:
    async def test(kit: Kit) -> None:
        await kit.tool("a", "t")
        items = (await kit.ask("GET", "/v1/agents/a/logs")).json["items"]
        assert [item["key_id"] for item in items] == [kit.key.split("_")[1]]
        assert (await kit.ask("GET", "/v1/agents/a/logs?offset=1")).json["items"] == []

    with_kit(test)


def test_the_end_of_a_lease_that_is_not_there() -> None:
    async def test(kit: Kit) -> None:
        for path, more in (("extend", {}), ("complete", {}), ("fail", {"error_code": "x"}), ("cancel", {})):
            told = await kit.ask("POST", f"/v1/ai/{path}", {"key": "k", "lease_id": "f", **more})
            assert (told.status, told.code) == (404, "not_found")

    with_kit(test)

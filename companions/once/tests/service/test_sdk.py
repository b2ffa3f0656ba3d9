"""The unmodified SDK, sync and async, against a real process: every call that it has."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from onceonly import ApiError, UnauthorizedError, ValidationError
from onceonly.decorators import idempotent, idempotent_ai

from companions.once.tests.service.serving import Sdk, Serving, sdk

pytestmark = pytest.mark.slow
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@contextmanager
def slip_of_the_sdk(client: Sdk) -> Iterator[None]:
    """SDK 3.0.5, ``run_fn_async``: who did the work gets the CancelledError of its own heartbeat, after all is stored.

    It awaits the heartbeat that it has cancelled, and ``except Exception`` does not catch that.
    """
    if client.mode == "sync":
        yield
    else:
        with pytest.raises(asyncio.CancelledError):
            yield


def test_check_lock(client: Sdk) -> None:
    first = client("check_lock", "order:1", ttl=60, meta={"n": 1}, request_id="my-request")
    again = client("check_lock", "order:1", ttl=60)
    other = client("check_lock", "order:2")
    assert (first.locked, first.duplicate, first.status_code, first.ttl) == (True, False, 200, 60)
    assert (first.key, first.request_id) == ("order:1", "my-request")
    assert first.should_proceed()
    assert (again.locked, again.duplicate, again.status_code) == (False, True, 409)
    assert again.first_seen_at == first.first_seen_at
    assert MOMENT.fullmatch(again.first_seen_at)
    assert other.locked
    assert other.ttl == 86400


def test_a_claim_ends_with_its_ttl(client: Sdk) -> None:
    assert client("check_lock", "short", ttl=1).locked
    assert client("check_lock", "short", ttl=1).duplicate
    deadline = time.monotonic() + 10
    while not client("check_lock", "short", ttl=1).locked:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_lease_from_its_beginning_to_its_end(client: Sdk) -> None:
    lease = client("ai.lease", "job", ttl=30, metadata={"run_id": "run-1", "who": "me"})
    assert (lease["status"], lease["ok"], lease["version"], lease["charged"]) == ("acquired", True, 1, 1)
    busy = client("ai.lease", "job", ttl=30)
    assert (busy["status"], busy["lease_id"], busy["retry_after_sec"]) == ("in_progress", None, 1)
    status = client("ai.status", "job")
    assert (status.ok, status.status, status.lease_id, status.version) == (True, "in_progress", None, 1)
    assert 28 <= status.ttl_left <= 30
    assert client("ai.result", "job").status == "in_progress"
    extended = client("ai.extend", "job", lease["lease_id"], ttl=90)
    assert (extended["status"], extended["ttl"]) == ("extended", 90)
    assert 88 <= client("ai.status", "job").ttl_left <= 90
    assert client("ai.extend", "job", lease["lease_id"])["ttl"] == 30, "as it was taken"
    done = client("ai.complete", "job", lease["lease_id"], result={"answer": 42})
    assert (done["ok"], done["status"]) == (True, "completed")
    result = client("ai.result", "job")
    assert (result.ok, result.status, result.result) == (True, "completed", {"answer": 42})
    assert re.fullmatch("[0-9a-f]{64}", result.result_hash)
    assert MOMENT.fullmatch(result.done_at)
    replayed = client("ai.lease", "job")
    assert (replayed["status"], replayed["lease_id"], replayed["charged"]) == ("completed", None, 0)
    assert replayed["result"] == {"answer": 42}
    timeline = client("get_run_timeline", "run-1")
    assert [event["type"] for event in timeline["items"]] == ["lease_acquired", "lease_completed"]


def test_a_completion_may_be_repeated_by_its_holder(client: Sdk) -> None:
    lease_id = client("ai.lease", "twice")["lease_id"]
    first = client("ai.complete", "twice", lease_id, result={"n": 1}, result_hash="mine")
    again = client("ai.complete", "twice", lease_id, result={"n": 2})
    assert first == again
    assert (again["result_hash"], client("ai.result", "twice").result) == ("mine", {"n": 1})
    with pytest.raises(ApiError) as told:
        client("ai.fail", "twice", lease_id, error_code="late")
    assert (told.value.status_code, told.value.detail["code"]) == (409, "lease_lost")


def test_a_failure_is_told_to_all(client: Sdk) -> None:
    lease_id = client("ai.lease", "bad")["lease_id"]
    client("ai.fail", "bad", lease_id, error_code="no_money", error_hash="e1")
    result = client("ai.result", "bad")
    assert (result.ok, result.status, result.error_code, result.result) == (False, "failed", "no_money", None)
    again = client("ai.lease", "bad")
    assert (again["status"], again["error_code"], again["charged"]) == ("failed", "no_money", 0)


def test_a_cancel_gives_the_key_back(client: Sdk) -> None:
    lease_id = client("ai.lease", "undone")["lease_id"]
    assert client("ai.cancel", "undone", lease_id, reason="not now")["status"] == "cancelled"
    status = client("ai.status", "undone")
    assert (status.ok, status.status) == (False, "not_found")
    assert client("ai.lease", "undone")["status"] == "acquired"


def test_only_the_holder_may_end_a_lease(client: Sdk) -> None:
    client("ai.lease", "held")
    for method, options in (
        ("extend", {}),
        ("complete", {"result": {}}),
        ("fail", {"error_code": "x"}),
        ("cancel", {}),
    ):
        with pytest.raises(ApiError) as told:
            client(f"ai.{method}", "held", "f" * 32, **options)
        assert (told.value.status_code, told.value.detail["code"]) == (409, "lease_lost")
        with pytest.raises(ApiError) as told:
            client(f"ai.{method}", "nobody's", "f" * 32, **options)
        assert (told.value.status_code, told.value.detail["code"]) == (404, "not_found")
    assert client("ai.status", "held").status == "in_progress"


def test_a_lease_that_ran_out_is_taken_over(client: Sdk) -> None:
    first = client("ai.lease", "dead", ttl=1)["lease_id"]
    deadline = time.monotonic() + 10
    while client("ai.status", "dead").status != "expired":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = client("ai.lease", "dead", ttl=30)
    assert (second["status"], second["version"]) == ("acquired", 2)
    with pytest.raises(ApiError, match="lease_id"):
        client("ai.complete", "dead", first, result={})
    assert client("ai.complete", "dead", second["lease_id"], result={"by": "second"})["ok"]


def test_run_and_wait_with_a_worker(client: Sdk, served: tuple[Serving, str]) -> None:
    run = client("ai.run", "report", ttl=30, metadata={"month": 1}, run_id="r")
    assert (run.ok, run.status, run.version, run.ttl) == (True, "acquired", 1, 30)

    def work() -> None:
        time.sleep(0.3)
        client.client.ai.complete("report", run.lease_id, result={"pages": 3})

    worker = threading.Thread(target=work)
    worker.start()
    result = client("ai.run_and_wait", "report", timeout=10.0, poll_min=0.1, poll_max=0.2)
    worker.join()
    assert (result.ok, result.status, result.result) == (True, "completed", {"pages": 3})
    assert client("ai_run", "report").status == "completed"
    assert client("ai_run_and_wait", "report", timeout=5.0).result == {"pages": 3}


def test_wait_gives_up(client: Sdk) -> None:
    client("ai.lease", "endless", ttl=60)
    result = client("ai.wait", "endless", timeout=0.2, poll_min=0.05, poll_max=0.1)
    assert (result.ok, result.status, result.error_code) == (False, "failed", "timeout")


def test_run_fn(client: Sdk) -> None:
    ran = []

    def work() -> dict[str, int]:
        ran.append(1)
        return {"n": len(ran)}

    with slip_of_the_sdk(client):
        assert client("ai.run_fn", "fn", work, ttl=30).result == {"n": 1}
    results = [client("ai.run_fn", "fn", work, ttl=30) for _ in range(2)]
    assert [result.result for result in results] == [{"n": 1}] * 2
    assert len(ran) == 1

    def fails() -> None:
        raise ZeroDivisionError

    with slip_of_the_sdk(client), pytest.raises(ZeroDivisionError):
        client("ai.run_fn", "fn-bad", fails, error_code="divided")
    assert client("ai.run_fn", "fn-bad", work).error_code == "divided"
    client("ai.lease", "fn-busy", ttl=60)
    assert client("ai.run_fn", "fn-busy", work, wait_on_conflict=False).error_code == "not_acquired"
    assert len(ran) == 1


def test_the_decorators(client: Sdk) -> None:
    ran: list[str] = []
    if client.mode == "sync":

        @idempotent(client.client, key_prefix="charge", ttl=60, return_value_on_duplicate="before")
        def charge(order: str) -> str:
            ran.append(order)
            return "charged"

        @idempotent_ai(client.client, key_fn=lambda user: f"welcome:{user}", ttl=30)
        def welcome(user: str) -> dict[str, str]:
            ran.append(user)
            return {"sent": user}

        assert [charge("o1"), charge("o1"), charge("o2")] == ["charged", "before", "charged"]
        results = [welcome("u1"), welcome("u1")]
    else:

        @idempotent(client.client, key_prefix="charge", ttl=60, on_duplicate=lambda order: f"{order} before")
        async def charge_async(order: str) -> str:
            ran.append(order)
            return "charged"

        @idempotent_ai(client.client, key_fn=lambda user: f"welcome:{user}", ttl=30)
        async def welcome_async(user: str) -> dict[str, str]:
            ran.append(user)
            return {"sent": user}

        run: Any = client.loop.run_until_complete
        assert [run(charge_async(order)) for order in ("o1", "o1", "o2")] == ["charged", "o1 before", "charged"]
        with slip_of_the_sdk(client):
            run(welcome_async("u1"))
        results = [run(welcome_async("u1")) for _ in range(2)]
    assert [result.result for result in results] == [{"sent": "u1"}] * 2
    assert ran == ["o1", "o2", "u1"]


def test_the_account(client: Sdk) -> None:
    me = client("me")
    assert me["account"] == f"a{me['key']['id']}"
    assert client("update_notifications", email_notifications_enabled=True)["email_notifications_enabled"] is True
    changed = client("update_notifications", run_failure_notifications_enabled=True)
    assert changed == {
        "email_notifications_enabled": True,
        "tool_error_notifications_enabled": False,
        "run_failure_notifications_enabled": True,
    }
    assert client("me")["email_notifications_enabled"] is True


def test_usage_and_metrics(client: Sdk) -> None:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    for _ in range(3):
        client("check_lock", "k")
    client("ai.lease", "k")
    client("ai.run_tool", agent_id="a", tool="t")
    usage = client("usage")
    assert (usage["kind"], usage["usage"], usage["limit"], usage["period"]) == ("make", 3, None, today[:7])
    assert client("usage", "ai")["usage"] == 1
    assert {kind: found["usage"] for kind, found in client("usage_all").items()} == {"make": 3, "ai": 1, "tool": 1}
    metrics = client("metrics", "2026-01-01", today)
    assert [day["day"] for day in metrics["days"]] == [today]
    assert metrics["days"][0]["make"] == 3
    assert metrics["days"][0]["make_duplicates"] == 2
    assert metrics["process"]["once_executions_total"] >= 3
    assert metrics["process"]["once_store_seconds{operation=acquire}"]["count"] >= 5


def test_events_and_timelines(client: Sdk) -> None:
    client("post_event", run_id="a/b c", type="note", message="one", data={"n": 1}, ts=17, custom="kept")
    client("post_event", run_id="other", type="note")
    client("post_event", run_id="a/b c", type="step", step="s", status="ok", duration_ms=3, tool="t", agent_id="x")
    events = client("events", limit=2)
    assert [(event["run_id"], event["type"]) for event in events["items"]] == [("a/b c", "step"), ("other", "note")]
    assert client("events", limit=5, offset=2)["items"][0]["custom"] == "kept"
    timeline = client("get_run_timeline", "a/b c")
    assert [(event["type"], event["ts"] == 17) for event in timeline["items"]] == [("note", True), ("step", False)]
    assert timeline["total"] == 2
    assert client("get_run_timeline", "a/b c", limit=1, offset=1)["items"][0]["type"] == "step"


def test_policies(client: Sdk) -> None:
    policy = client("gov.upsert_policy", {"agent_id": "b", "max_actions_per_hour": 2, "blocked_tools": ["rm"]})
    assert (policy.agent_id, policy.max_actions_per_hour, policy.blocked_tools) == ("b", 2, ["rm"])
    client("gov.upsert_policy", {"max_spend_usd_per_day": 1.5, "max_calls_per_tool": {"t": 1}}, agent_id="a")
    assert client("gov.get_policy", "a").max_calls_per_tool == {"t": 1}
    made = client("gov.policy_from_template", "c", "moderate", {"max_actions_per_hour": 3})
    assert (made.max_actions_per_hour, made.max_spend_usd_per_day) == (3, 50.0)
    assert [policy.agent_id for policy in client("gov.list_policies")] == ["a", "b", "c"]
    with pytest.raises(ApiError) as told:
        client("gov.get_policy", "nobody")
    assert told.value.status_code == 404
    with pytest.raises(ValidationError, match="max_actions_per_hour"):
        client("gov.upsert_policy", {"agent_id": "b", "max_actions_per_hour": "many"})
    with pytest.raises(ValidationError, match="max_action_per_hour"):
        client("gov.upsert_policy", {"agent_id": "b", "max_action_per_hour": 1})
    assert client("gov.get_policy", "b").max_actions_per_hour == 2


def test_tool_calls(client: Sdk) -> None:
    client(
        "gov.upsert_policy",
        {
            "agent_id": "bot",
            "max_spend_usd_per_day": 1.0,
            "blocked_tools": ["rm"],
            "max_calls_per_tool": {"mail": 1},
            "pricing_rules": [{"tool": "pay*", "usd": 0.4}],
        },
    )
    first = client("ai.run_tool", agent_id="bot", tool="pay.card", args={"n": 1, "to": "x"}, run_id="r1")
    assert (first.ok, first.allowed, first.decision, first.policy_reason) == (True, True, "allowed", None)
    again = client("ai.run_tool", agent_id="bot", tool="pay.card", args={"to": "x", "n": 1}, run_id="r1")
    assert (again.ok, again.allowed, again.decision, again.policy_reason) == (True, False, "dedup", "duplicate_call")
    blocked = client("ai.run_and_wait", agent_id="bot", tool="rm")
    assert (blocked.ok, blocked.allowed, blocked.decision) == (False, False, "blocked")
    assert blocked.policy_reason == "tool_blocked"
    assert client("ai.run_tool", agent_id="bot", tool="pay.card", args={"n": 2}, spend_usd=0.6).allowed
    over = client("ai.run_tool", agent_id="bot", tool="pay.card", args={"n": 3})
    assert (over.allowed, over.policy_reason) == (False, "max_spend_usd_per_day")
    assert client("ai.run_tool", agent_id="bot", tool="mail", args={"n": 1}).allowed
    assert client("ai.run_tool", agent_id="bot", tool="mail", args={"n": 2}).policy_reason == "max_calls_per_tool"
    logs = client("gov.agent_logs", "bot", limit=100)
    assert [log.decision for log in reversed(logs)] == [
        "allowed",
        "dedup",
        "blocked",
        "allowed",
        "blocked",
        "allowed",
        "blocked",
    ]
    assert logs[-1].spend_usd == 0.4
    assert logs[0].policy_reason == "max_calls_per_tool"
    metrics = client("gov.agent_metrics", "bot", period="day")
    assert (metrics.total_actions, metrics.blocked_actions, metrics.total_spend_usd) == (6, 3, 1.0)
    assert metrics.top_tools == [{"tool": "pay.card", "count": 2}, {"tool": "mail", "count": 1}]
    assert client("gov.agent_metrics", "bot", period="hour").total_actions == 6
    assert client("gov.agent_metrics", "bot", period="week").total_actions == 6
    timeline = client("get_run_timeline", "r1")
    assert [event["type"] for event in timeline["items"]] == ["tool_allowed", "tool_dedup"]


def test_the_kill_switch(client: Sdk) -> None:
    assert client("ai.run_tool", agent_id="rogue", tool="t", args={"n": 1}).allowed
    off = client("gov.disable_agent", "rogue", reason="suspicious")
    assert (off.enabled, off.disabled_reason) == (False, "suspicious")
    assert MOMENT.fullmatch(off.disabled_at)
    blocked = client("ai.run_tool", agent_id="rogue", tool="t", args={"n": 2})
    assert (blocked.allowed, blocked.policy_reason) == (False, "agent_disabled")
    on = client("gov.enable_agent", "rogue")
    assert (on.enabled, on.disabled_at) == (True, None)
    assert client("ai.run_tool", agent_id="rogue", tool="t", args={"n": 2}).allowed
    words = [log.decision for log in client("gov.agent_logs", "rogue")]
    assert words == ["allowed", "agent_enabled", "blocked", "agent_disabled", "allowed"]


def test_the_registry_of_tools(client: Sdk) -> None:
    tool = {
        "name": "send_email",
        "url": "https://example.com/tools/send_email",
        "scope_id": "global",
        "auth": {"type": "hmac_sha256", "secret": "shared"},
        "enabled": True,
        "risk_level": "high",
    }
    made = client("gov.create_tool", tool)
    assert (made["name"], made["enabled"], made["auth"]) == ("send_email", True, {"type": "hmac_sha256"})
    with pytest.raises(ApiError) as told:
        client("gov.create_tool", tool)
    assert told.value.status_code == 409
    assert [found["name"] for found in client("gov.list_tools")] == ["send_email"]
    assert client("gov.list_tools", scope_id="agent:x") == []
    assert client("ai.run_tool", agent_id="x", tool="send_email").risk_level == "high"
    assert client("gov.toggle_tool", "send_email", enabled=False)["enabled"] is False
    assert client("ai.run_tool", agent_id="x", tool="send_email", args={"n": 1}).policy_reason == "tool_disabled"
    assert client("gov.get_tool", "send_email")["url"] == tool["url"]
    assert client("gov.delete_tool", "send_email")["deleted"] is True
    with pytest.raises(ApiError) as told:
        client("gov.get_tool", "send_email")
    assert told.value.status_code == 404


def test_one_account_never_sees_another(client: Sdk, served: tuple[Serving, str]) -> None:
    service, address = served
    lease_id = client("ai.lease", "k")["lease_id"]
    client("check_lock", "k")
    client("gov.upsert_policy", {"agent_id": "a", "max_actions_per_hour": 0})
    client("gov.disable_agent", "a")
    client("gov.create_tool", {"name": "t", "enabled": False})
    client("post_event", run_id="r", type="note")
    with sdk(address, service.key(), client.mode) as other:
        assert other("ai.status", "k").status == "not_found"
        with pytest.raises(ApiError) as told:
            other("ai.complete", "k", lease_id, result={})
        assert told.value.status_code == 404
        assert other("check_lock", "k").locked
        assert other("gov.list_policies") == []
        assert other("gov.list_tools") == []
        assert other("gov.agent_logs", "a") == []
        assert other("events")["items"] == []
        assert other("get_run_timeline", "r")["items"] == []
        assert other("usage", "ai")["usage"] == 0
        assert other("ai.run_tool", agent_id="a", tool="t").allowed


def test_keys_of_one_account_share_it(client: Sdk, served: tuple[Serving, str]) -> None:
    service, address = served
    client("check_lock", "k")
    with sdk(address, service.key(client("me")["account"]), client.mode) as successor:
        assert successor("check_lock", "k").duplicate


def test_wrong_keys_and_fields(client: Sdk, served: tuple[Serving, str]) -> None:
    with sdk(served[1], "once_live_wrong", client.mode) as wrong, pytest.raises(UnauthorizedError):
        wrong("check_lock", "k")
    for key, ttl in (("", 1), ("k" * 256, 1), ("a\nb", 1), ("k", 0), ("k", 10**9)):
        with pytest.raises(ValidationError, match=r"key|ttl"):
            client("check_lock", key, ttl=ttl if ttl else -1)

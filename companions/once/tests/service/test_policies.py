"""The decision on a call: pure, with time as an argument."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall_once.service.policies import TEMPLATES, Meters, ToolCall, Usage, cost, decide, dollars, limit
from lastcall_once.service.routes import ROUTES

NOON = 1_700_000_000.0  # 2023-11-14T22:13:20Z
METERS = Meters("acc", "bot")


def decision(policy: dict[str, Any] | None, usage: Usage | None = None, **call: Any) -> tuple[str, str | None]:
    made = decide(policy, usage or Usage(), ToolCall("bot", **{"tool": "t", **call}), NOON, METERS)
    return made.word, made.reason


def blocked(reason: str) -> tuple[str, str]:
    return "blocked", reason


ALLOWED = ("allowed", None)


@pytest.mark.parametrize("policy", [None, {}, {"allowed_tools": None, "max_actions_per_hour": None}])
def test_without_a_rule_all_is_allowed(policy: dict[str, Any] | None) -> None:
    assert decision(policy, Usage(actions=10**6, spent=10**12, calls=10**6), usd=1000.0) == ALLOWED


def test_switches_come_before_rules() -> None:
    policy = {"blocked_tools": ["t"], "max_actions_per_hour": 0}
    assert decision(policy, Usage(agent_enabled=False, tool_enabled=False)) == blocked("agent_disabled")
    assert decision(policy, Usage(tool_enabled=False)) == blocked("tool_disabled")
    assert decision(policy) == blocked("tool_blocked")


def test_lists_of_tools() -> None:
    assert decision({"allowed_tools": ["t"]}) == ALLOWED
    assert decision({"allowed_tools": ["u"]}) == blocked("tool_not_allowed")
    assert decision({"allowed_tools": []}) == blocked("tool_not_allowed")
    assert decision({"blocked_tools": ["u"]}) == ALLOWED
    assert decision({"allowed_tools": ["t"], "blocked_tools": ["t"]}) == blocked("tool_blocked")


def test_actions_in_an_hour() -> None:
    assert decision({"max_actions_per_hour": 2}, Usage(actions=1)) == ALLOWED
    assert decision({"max_actions_per_hour": 2}, Usage(actions=2)) == blocked("max_actions_per_hour")
    assert decision({"max_actions_per_hour": 0}) == blocked("max_actions_per_hour")


def test_calls_of_a_tool() -> None:
    assert decision({"max_calls_per_tool": {"t": 2}}, Usage(calls=1)) == ALLOWED
    assert decision({"max_calls_per_tool": {"t": 2}}, Usage(calls=2)) == blocked("max_calls_per_tool")
    assert decision({"max_calls_per_tool": {"u": 0}}, Usage(calls=2)) == ALLOWED


def test_money() -> None:
    policy = {"max_spend_usd_per_day": 0.3}
    assert decision(policy, Usage(spent=200_000), usd=0.1) == ALLOWED, "0.1 + 0.2 is 0.3 here"
    assert decision(policy, Usage(spent=200_001), usd=0.1) == blocked("max_spend_usd_per_day")
    assert decision(policy, Usage(spent=300_000)) == ALLOWED, "what costs nothing may go on"
    assert (cost(0.0000001), limit(0.0000019), cost(1), dollars(1_500_000)) == (1, 1, 1_000_000, 1.5)


@pytest.mark.parametrize(
    ("tool", "usd", "spent"), [("pay.card", 0.0, 400_000), ("pay.card", 0.5, 500_000), ("x", 0.1, 100_000)]
)
def test_prices(tool: str, usd: float, spent: int) -> None:
    policy = {"pricing_rules": [{"tool": "pay.*", "usd": 0.4}, {"tool": "pay.card", "usd": 9}]}
    assert decide(policy, Usage(), ToolCall("bot", tool, usd), NOON, METERS).spend == spent


def test_what_is_charged() -> None:
    policy = {"max_actions_per_hour": 5, "max_spend_usd_per_day": 2.0, "max_calls_per_tool": {"t": 3}}
    made = decide(policy, Usage(), ToolCall("bot", "t", 0.5), NOON, METERS)
    assert {(charge.counter, charge.amount, charge.limit) for charge in made.charges} == {
        ("acc/agent/bot/actions/2023-11-14T22", 1, 5),
        ("acc/agent/bot/actions/2023-11-14", 1, None),
        ("acc/agent/bot/tool/t/2023-11-14", 1, 3),
        ("acc/agent/bot/spent/2023-11-14T22", 500_000, None),
        ("acc/agent/bot/spent/2023-11-14", 500_000, 2_000_000),
    }
    assert set(METERS.read_for("t", NOON)) <= {charge.counter for charge in made.charges}


def test_windows_are_hours_and_days_of_utc() -> None:
    def counters(now: float) -> tuple[str, str, str]:
        return METERS.read_for("t", now)

    hour = NOON - NOON % 3600
    day = NOON - NOON % 86400
    assert counters(hour) == counters(hour + 3599.999)
    assert counters(hour)[0] != counters(hour + 3600)[0]
    assert counters(day)[1:] == counters(day + 86399.999)[1:]
    assert counters(day)[1] != counters(day + 86400)[1]


def test_a_blocked_call_is_charged_nothing_but_counted() -> None:
    made = decide({"max_actions_per_hour": 0}, Usage(), ToolCall("bot", "t", 5.0), NOON, METERS)
    assert made.spend == 0
    assert {charge.counter for charge in made.charges} == {
        "acc/agent/bot/blocked/2023-11-14T22",
        "acc/agent/bot/blocked/2023-11-14",
    }


@given(
    st.lists(st.integers(0, 3_000_000), max_size=30),
    st.integers(0, 10_000_000),
)
def test_no_sequence_of_calls_goes_above_the_cap(costs: list[int], cap: int) -> None:
    spent = 0
    for each in costs:
        call = ToolCall("bot", "t", dollars(each))
        made = decide({"max_spend_usd_per_day": dollars(cap)}, Usage(spent=spent), call, NOON, METERS)
        spent += made.spend
        assert made.spend in (0, each)
    assert spent <= cap


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_policies(name: str) -> None:
    route = next(route for route in ROUTES if route.path == "/v1/policies" and route.method == "POST")
    assert route.body is not None
    policy = {"agent_id": "a", **TEMPLATES[name]}
    assert route.body.check(policy, "") == policy

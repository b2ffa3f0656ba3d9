"""May this agent make this call? The rules, pure: time and what was used so far are arguments.

A policy is a JSON object; all of its members are optional, and none of them there means no limit:

- ``allowed_tools``: only these (an empty list: none at all); ``blocked_tools``: not these, whatever else is said.
- ``max_actions_per_hour``: calls in an hour of UTC.
- ``max_spend_usd_per_day``: US dollars in a day of UTC.
- ``max_calls_per_tool``: for single tools, calls in a day of UTC.
- ``pricing_rules``: what a call costs at least, ``{"tool": GLOB, "usd": AMOUNT}``; the first one that fits counts.

Money is in millionths of a dollar, integers: costs are rounded up, limits down. What a call would go above a limit
with is not charged at all, neither money nor actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fnmatch import fnmatchcase
from typing import Any

from lastcall_once._record import Record
from lastcall_once.documents import Charge
from lastcall_once.service.timestamps import DAY, HOUR, day_of, hour_of

ALLOWED = "allowed"
BLOCKED = "blocked"
DEDUP = "dedup"

COUNTED_DAYS = 9  # a week of figures needs eight days, and one to spare for clocks
_USD = 1_000_000

TEMPLATES: dict[str, dict[str, Any]] = {
    "strict": {"max_actions_per_hour": 20, "max_spend_usd_per_day": 5.0, "allowed_tools": []},
    "moderate": {"max_actions_per_hour": 200, "max_spend_usd_per_day": 50.0, "blocked_tools": ["delete_user"]},
    "permissive": {"max_actions_per_hour": 2000, "max_spend_usd_per_day": 500.0},
    "read_only": {
        "max_actions_per_hour": 500,
        "max_spend_usd_per_day": 5.0,
        "allowed_tools": ["get", "list", "read", "search"],
    },
    "support_bot": {
        "max_actions_per_hour": 200,
        "max_spend_usd_per_day": 25.0,
        "blocked_tools": ["delete_user", "refund_all"],
        "max_calls_per_tool": {"send_email": 100, "refund": 5},
    },
}
"""Policies to begin with; a request's ``overrides`` replace their members."""


class ToolCall(Record):
    """What is asked for. ``usd`` is what the caller says it costs, in dollars."""

    agent: str
    tool: str
    usd: float = 0.0


class Usage(Record):
    """Where the agent stands: switches, and what was used in the windows of ``now`` (``spent``: millionths)."""

    agent_enabled: bool = True
    tool_enabled: bool = True
    actions: int = 0
    spent: int = 0
    calls: int = 0


class Decision(Record):
    """``word`` is ``allowed``, ``blocked`` or ``dedup``; ``reason`` which rule was in the way.

    ``charges`` are what the call has to be charged, all or nothing, before it may be called allowed: somebody else may
    have used up the rest since ``Usage`` was read.
    """

    word: str
    reason: str | None = None
    spend: int = 0
    charges: tuple[Charge, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the caller may go ahead."""
        return self.word == ALLOWED


class Meters(Record):
    """The names of an agent's counters, at ``now``. ``account`` goes in front: no two accounts share any."""

    account: str
    agent: str

    def actions(self, window: str) -> str:
        """Of allowed calls in an hour, or a day."""
        return f"{self.account}/agent/{self.agent}/actions/{window}"

    def blocked(self, window: str) -> str:
        """Of calls that were not."""
        return f"{self.account}/agent/{self.agent}/blocked/{window}"

    def spent(self, window: str) -> str:
        """Of money."""
        return f"{self.account}/agent/{self.agent}/spent/{window}"

    def tool(self, tool: str, window: str) -> str:
        """Of allowed calls of one tool."""
        return f"{self.account}/agent/{self.agent}/tool/{tool}/{window}"

    def read_for(self, tool: str, now: float) -> tuple[str, str, str]:
        """What ``Usage`` is made of: actions, money, calls of the tool."""
        return self.actions(hour_of(now)), self.spent(day_of(now)), self.tool(tool, day_of(now))


def decide(policy: Mapping[str, Any] | None, usage: Usage, call: ToolCall, now: float, meters: Meters) -> Decision:
    """The decision on ``call`` at ``now`` (seconds since 1970). None is no policy: nothing is limited."""
    policy = policy or {}
    cost = cost_of(policy, call)
    calls_limit = (policy.get("max_calls_per_tool") or {}).get(call.tool)
    actions_limit = policy.get("max_actions_per_hour")
    spend_limit = None if policy.get("max_spend_usd_per_day") is None else limit(policy["max_spend_usd_per_day"])
    for reason, broken in (
        ("agent_disabled", not usage.agent_enabled),
        ("tool_disabled", not usage.tool_enabled),
        ("tool_blocked", call.tool in (policy.get("blocked_tools") or ())),
        ("tool_not_allowed", policy.get("allowed_tools") is not None and call.tool not in policy["allowed_tools"]),
        ("max_actions_per_hour", actions_limit is not None and usage.actions + 1 > actions_limit),
        ("max_calls_per_tool", calls_limit is not None and usage.calls + 1 > calls_limit),
        ("max_spend_usd_per_day", spend_limit is not None and usage.spent + cost > spend_limit),
    ):
        if broken:
            return Decision(BLOCKED, reason, charges=_counted(meters, now))
    hour, day, keep = hour_of(now), day_of(now), float(COUNTED_DAYS * DAY)
    charges = (
        Charge(meters.actions(hour), 1, actions_limit, 2.0 * HOUR),
        Charge(meters.actions(day), 1, None, keep),
        Charge(meters.tool(call.tool, day), 1, calls_limit, keep),
        Charge(meters.spent(hour), cost, None, 2.0 * HOUR),
        Charge(meters.spent(day), cost, spend_limit, keep),
    )
    return Decision(ALLOWED, spend=cost, charges=charges)


def _counted(meters: Meters, now: float) -> tuple[Charge, ...]:
    """For the figures only."""
    return (
        Charge(meters.blocked(hour_of(now)), 1, None, 2.0 * HOUR),
        Charge(meters.blocked(day_of(now)), 1, None, float(COUNTED_DAYS * DAY)),
    )


def cost_of(policy: Mapping[str, Any], call: ToolCall) -> int:
    """What the call costs, in millionths: what its caller says, and not less than the policy's price."""
    for rule in policy.get("pricing_rules") or ():
        if fnmatchcase(call.tool, rule["tool"]):
            return max(cost(call.usd), cost(rule["usd"]))
    return cost(call.usd)


def cost(usd: float) -> int:
    """Dollars in millionths, rounded up."""
    return int((Decimal(str(usd)) * _USD).to_integral_value(ROUND_CEILING))


def limit(usd: float) -> int:
    """Dollars in millionths, rounded down."""
    return int((Decimal(str(usd)) * _USD).to_integral_value(ROUND_FLOOR))


def dollars(millionths: int) -> float:
    """Millionths in dollars."""
    return millionths / _USD

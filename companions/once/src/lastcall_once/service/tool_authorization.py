"""Authorization of tool calls, ``POST /v1/ai/run`` with an agent and a tool: may the agent call it so now.

Theory of operation
-------------------
The service calls no tool. ``decision`` says what was decided, and is on record before the answer goes out:

- ``allowed`` (``allowed`` is true): the caller goes ahead. The call has been charged.
- ``blocked``: a rule forbids it, ``policy_reason`` names it. Nothing was charged.
- ``dedup``: the same agent was allowed to call the same tool with the same arguments (as JSON, whatever its white space
  and order) less than a window ago, or is being so right now. ``allowed`` is false: who goes ahead does it twice.

Each call is a key in the store, made of agent, tool and arguments. Its lease is held while the decision is made: then
it is done for the window's length, or given back. Limits are kept by the charge, which is one step for all processes;
one that is refused means that somebody else was faster, and the decision is made again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from contextlib import suppress
from typing import Any

from lastcall_once.documents import Document
from lastcall_once.guard import check_key
from lastcall_once.own_task import own_task
from lastcall_once.records import Attempt, Event, Verdict
from lastcall_once.service.agents import audit, tools_of
from lastcall_once.service.core import Answer, Call
from lastcall_once.service.faults import Fault
from lastcall_once.service.locks import hash_of
from lastcall_once.service.policies import BLOCKED, DEDUP, Decision, Meters, ToolCall, Usage, decide, dollars
from lastcall_once.service.timestamps import iso
from lastcall_once.store import StoreError

_DECIDING = 15.0  # seconds: the lease of a decision, longer than a store's timeouts
_TRIES = 5

GLOBAL = "global"


class _AgentState:
    """The stored state of an agent and a tool, as read once."""

    def __init__(self, agent: Document | None, policy: Document | None, tools: list[Document | None]) -> None:
        registered = [json.loads(tool.data) for tool in tools if tool is not None]
        self.agent_enabled = agent is None or json.loads(agent.data)["is_enabled"]
        self.policy: dict[str, Any] | None = None if policy is None else json.loads(policy.data)["policy"]
        self.tool_enabled = all(tool["enabled"] for tool in registered)
        self.risk: str | None = next((tool["risk_level"] for tool in registered if tool.get("risk_level")), None)


async def authorize(call: Call) -> Answer:
    """Decide, charge, record."""
    body = call.body
    asked = ToolCall(body["agent_id"], body["tool"], body.get("spend_usd") or 0.0)
    args_hash = hash_of(body.get("args") or {})
    if call.draining:
        raise Fault("draining")
    once = call.core.once
    attempt = Attempt(_key(call, asked, args_hash), secrets.token_hex(16), _DECIDING, _DECIDING, f"key/{call.key.id}")
    outcome = await once.attempt(attempt)
    if outcome is None:  # pragma: no cover - fail_open is never set here
        raise StoreError("the store failed")
    first: str | None = None
    if outcome.verdict is Verdict.GRANTED:
        try:
            state = await _read_state(call, asked)
            decision = await _decide_and_charge(call, asked, state)
            await _record(call, asked, args_hash, decision, state)
        except BaseException:
            with suppress(StoreError):
                await once.shielded(once.store.finish(attempt.key, attempt.token, Event.RELEASE, ttl=1.0))
            raise
        await _settle(call, attempt, decision)
    else:
        word = "duplicate_call" if outcome.verdict is Verdict.DONE else "duplicate_call_in_progress"
        decision, first = Decision(DEDUP, word), iso(outcome.record.first_seen_at)
        state = await _read_state(call, asked)
        await _record(call, asked, args_hash, decision, state)
    call.count(f"tool_{decision.word}")
    return Answer(
        {
            "ok": decision.word != BLOCKED,
            "allowed": decision.allowed,
            "decision": decision.word,
            "policy_reason": decision.reason,
            "risk_level": state.risk,
            "result": None,
            "agent_id": asked.agent,
            "tool": asked.tool,
            "args_hash": args_hash,
            "spend_usd": dollars(decision.spend),
            "first_seen_at": first,
        }
    )


async def _settle(call: Call, attempt: Attempt, decision: Decision) -> None:
    """Keep the key of a call that is allowed for the window; give back that of another."""
    once = call.core.once
    window = float(call.core.settings.dedup_window)
    event, ttl = (Event.COMPLETE, window) if decision.allowed else (Event.RELEASE, 1.0)
    if not await once.shielded(once.timed("finish", once.store.finish(attempt.key, attempt.token, event, ttl=ttl))):
        raise StoreError("a decision took longer than its lease")


async def _read_state(call: Call, asked: ToolCall) -> _AgentState:
    reads = (
        call.documents.read(call.scoped_name("agents"), asked.agent),
        call.documents.read(call.scoped_name("policies"), asked.agent),
        *(call.documents.read(tools_of(call, scope), asked.tool) for scope in _scopes(asked.agent)),
    )
    agent, policy, *tools = await asyncio.gather(*map(own_task, reads))
    return _AgentState(agent, policy, tools)


def _scopes(agent: str) -> tuple[str, ...]:
    """Where a tool may be registered that the agent can call; it has to be enabled in all of them that know it."""
    return GLOBAL, agent, f"agent:{agent}"


async def _decide_and_charge(call: Call, asked: ToolCall, state: _AgentState) -> Decision:
    """The decision, charged."""
    meters = Meters(call.account, asked.agent)
    for _ in range(_TRIES):
        actions, spent, calls = await call.documents.counts(meters.read_for(asked.tool, call.now))
        usage = Usage(state.agent_enabled, state.tool_enabled, actions, spent, calls)
        decision = decide(state.policy, usage, asked, call.now, meters)
        if await call.documents.charge(decision.charges) is None:
            return decision
    raise StoreError("a charge was refused again and again, though the limits allow it")


async def _record(call: Call, asked: ToolCall, args_hash: str, decision: Decision, state: _AgentState) -> None:
    facts = {
        "tool": asked.tool,
        "allowed": decision.allowed,
        "decision": decision.word,
        "policy_reason": decision.reason,
        "args_hash": args_hash,
        "risk_level": state.risk,
        "spend_usd": dollars(decision.spend),
    }
    await audit(call, asked.agent, facts)
    run_id = (call.body.get("args") or {}).get("run_id")
    if isinstance(run_id, str):
        await call.journal(f"tool_{decision.word}", run_id, agent_id=asked.agent, **facts)


def _key(call: Call, asked: ToolCall, args_hash: str) -> str:
    name = hashlib.sha256("\0".join((asked.agent, asked.tool, args_hash)).encode()).hexdigest()
    return check_key(name, f"api/{call.account}/tool")

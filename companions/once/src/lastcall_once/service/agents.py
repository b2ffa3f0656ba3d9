"""``/v1/policies…``, ``/v1/agents…`` and ``/v1/tools…``: what agents may do, and what they did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lastcall_once.documents import Document
from lastcall_once.service.core import Answer, Call, content_of, text_of
from lastcall_once.service.faults import Fault
from lastcall_once.service.policies import TEMPLATES, Meters, dollars
from lastcall_once.service.timestamps import days_until, hour_of, iso
from lastcall_once.service.validators import Invalid

AUDIT_KEPT = 10_000  # entries of an agent
TOP_TOOLS = 10
_LOOKED_AT = 1_000  # entries of the audit log in which the names of tools are looked for
_PERIODS = {"day": 1, "week": 7}


async def list_policies(call: Call) -> Answer:
    """All policies, by the names of their agents."""
    found = await _page(call, call.scoped_name("policies"), call.query["limit"], call.query.get("after", ""))
    return Answer({"items": [_policy(document) for document in found], **_next(found, call.query["limit"])})


async def put_policy(call: Call) -> Answer:
    """Set the policy of an agent; what it was before is forgotten."""
    body = dict(call.body)
    agent = call.path.get("agent_id") or body.get("agent_id")
    if agent is None:
        raise Invalid("agent_id", "a value: it is required")
    _check_agent(agent, body.pop("agent_id", agent))
    return await _write_policy(call, agent, body)


async def policy_from_template(call: Call) -> Answer:
    """Set the policy of an agent to a template's, with changes."""
    agent = call.path["agent_id"]
    _check_agent(agent, call.body.get("agent_id", agent))
    overrides = call.body.get("overrides") or {}
    _check_agent(agent, overrides.get("agent_id", agent))
    changes = {name: value for name, value in overrides.items() if name != "agent_id"}
    return await _write_policy(call, agent, {**TEMPLATES[call.body["template"]], **changes})


async def get_policy(call: Call) -> Answer:
    """The policy of an agent."""
    document = await call.documents.read(call.scoped_name("policies"), call.path["agent_id"])
    if document is None:
        raise Fault("not_found", "The agent has no policy.", agent_id=call.path["agent_id"])
    return Answer(_policy(document))


async def _write_policy(call: Call, agent: str, policy: Mapping[str, Any]) -> Answer:
    data = text_of({"agent_id": agent, "policy": policy})
    document = await call.documents.write(call.scoped_name("policies"), agent, data)
    assert document is not None, "any version is written over"
    return Answer(_policy(document))


def _policy(document: Document) -> dict[str, Any]:
    return content_of(document)


def _check_agent(agent: str, named: str) -> None:
    if agent != named:
        raise Invalid("agent_id", f"{agent}, the agent of the path")


# -- the kill switch ---------------------------------------------------------------------------------------------------


async def enable_agent(call: Call) -> Answer:
    """Let an agent act again."""
    return await _switch(call, True)


async def disable_agent(call: Call) -> Answer:
    """Block every call of an agent, from now on, until it is enabled."""
    return await _switch(call, False)


async def _switch(call: Call, enabled: bool) -> Answer:
    agent, reason = call.path["agent_id"], (call.body or {}).get("reason", "")
    state = {
        "agent_id": agent,
        "is_enabled": enabled,
        "disabled_reason": None if enabled else reason,
        "disabled_at": None if enabled else iso(call.now),
    }
    document = await call.documents.write(call.scoped_name("agents"), agent, text_of(state))
    assert document is not None, "any version is written over"
    word = "agent_enabled" if enabled else "agent_disabled"
    await audit(call, agent, {"tool": None, "allowed": enabled, "decision": word, "reason": reason})
    return Answer(content_of(document))


# -- the audit log -----------------------------------------------------------------------------------------------------


async def audit(call: Call, agent: str, decided: Mapping[str, Any]) -> None:
    """Append to the log of an agent: whatever is decided is there. Raises StoreError."""
    entry = {"ts": iso(call.now), "agent_id": agent, "key_id": call.key.id, **decided}
    await call.documents.append(call.scoped_name("audit", agent), text_of(entry), keep=AUDIT_KEPT)


async def agent_logs(call: Call) -> Answer:
    """The audit log of an agent, the newest first."""
    limit, offset = call.query["limit"], call.query["offset"]
    found = await call.documents.entries(call.scoped_name("audit", call.path["agent_id"]), limit=limit, offset=offset)
    items = [{"number": entry.number, **json.loads(entry.data)} for entry in found]
    return Answer({"items": items, "limit": limit, "offset": offset})


async def agent_metrics(call: Call) -> Answer:
    """What an agent did in this hour, this day or the seven days up to today (UTC)."""
    agent, period = call.path["agent_id"], call.query["period"]
    meters = Meters(call.account, agent)
    days = days_until(call.now, _PERIODS.get(period, 1))
    windows = [hour_of(call.now)] if period == "hour" else days
    entries = await call.documents.entries(call.scoped_name("audit", agent), limit=_LOOKED_AT)
    tools = sorted({tool for entry in entries if (tool := json.loads(entry.data).get("tool")) is not None})
    sums = [meters.actions, meters.blocked, meters.spent]
    names = [name(window) for name in sums for window in windows]
    names += [meters.tool(tool, day) for tool in tools for day in days]
    counts = list(await call.documents.counts(names))
    size = len(windows)
    allowed, blocked, spent = (sum(counts[start * size : (start + 1) * size]) for start in range(len(sums)))
    rest, length = counts[len(sums) * size :], len(days)
    calls = {tool: sum(rest[number * length : (number + 1) * length]) for number, tool in enumerate(tools)}
    top = sorted((tool for tool in tools if calls[tool]), key=lambda tool: (-calls[tool], tool))
    return Answer(
        {
            "agent_id": agent,
            "period": period,
            "total_actions": allowed + blocked,
            "allowed_actions": allowed,
            "blocked_actions": blocked,
            "total_spend_usd": dollars(spent),
            "top_tools": [{"tool": tool, "count": calls[tool]} for tool in top[:TOP_TOOLS]],
        }
    )


# -- the registry of tools ---------------------------------------------------------------------------------------------


async def create_tool(call: Call) -> Answer:
    """Register a tool. The service calls none: what it uses is whether the tool is enabled, and its risk."""
    tool = {"scope_id": "global", "enabled": True, **call.body}
    if isinstance(tool.get("auth"), dict):
        # Nobody here signs anything, so that nobody here needs it.
        tool["auth"] = {name: value for name, value in tool["auth"].items() if name != "secret"}
    data = text_of({**tool, "created_at": iso(call.now)})
    document = await call.documents.write(_tools(call, tool["scope_id"]), tool["name"], data, version=0)
    if document is None:
        raise Fault("tool_exists", name=tool["name"], scope_id=tool["scope_id"])
    return Answer(content_of(document))


async def list_tools(call: Call) -> Answer:
    """The tools of a scope, by name."""
    found = await _page(call, _tools(call), call.query["limit"], call.query.get("after", ""))
    return Answer({"items": [content_of(document) for document in found], **_next(found, call.query["limit"])})


async def get_tool(call: Call) -> Answer:
    """A tool."""
    return Answer(content_of(await _tool(call)))


async def toggle_tool(call: Call) -> Answer:
    """Enable or disable a tool. Calls of one that is disabled are blocked, in its scope."""
    while True:
        document = await _tool(call)
        data = text_of({**json.loads(document.data), "enabled": call.body["enabled"]})
        written = await call.documents.write(document.collection, document.name, data, version=document.version)
        if written is not None:
            return Answer(content_of(written))


async def delete_tool(call: Call) -> Answer:
    """Forget a tool."""
    if not await call.documents.remove(_tools(call), call.path["name"]):
        raise _no_tool(call)
    return Answer({"ok": True, "deleted": True, "name": call.path["name"], "scope_id": call.query["scope_id"]})


async def _tool(call: Call) -> Document:
    document = await call.documents.read(_tools(call), call.path["name"])
    if document is None:
        raise _no_tool(call)
    return document


def _no_tool(call: Call) -> Fault:
    return Fault(
        "not_found",
        "No tool of this name is registered in this scope.",
        name=call.path["name"],
        scope_id=call.query["scope_id"],
    )


def _tools(call: Call, scope: str | None = None) -> str:
    return tools_of(call, call.query["scope_id"] if scope is None else scope)


def tools_of(call: Call, scope: str) -> str:
    """The collection of a scope's tools."""
    return call.scoped_name("tools", scope)


async def _page(call: Call, collection: str, limit: int, after: str) -> list[Document]:
    return list(await call.documents.list_documents(collection, after=after, limit=limit))


def _next(found: list[Document], limit: int) -> dict[str, str | None]:
    """Where the next page begins, if this one is full."""
    return {"next": found[-1].name if len(found) == limit else None}

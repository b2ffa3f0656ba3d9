"""The endpoints: one table, by which requests are found, checked and described (``openapi``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote_to_bytes

from lastcall_once._record import Record
from lastcall_once.guard import MAX_KEY
from lastcall_once.service import account, agents, gate, locks
from lastcall_once.service.core import Answer, Call
from lastcall_once.service.kinds import (
    Anything,
    Choice,
    Either,
    Flag,
    Integer,
    Items,
    Kind,
    Maybe,
    Members,
    Number,
    Shape,
    Text,
)
from lastcall_once.service.policies import TEMPLATES

Handler = Callable[[Call], Awaitable[Answer]]

LONGEST_LEASE = 86_400  # seconds
LONGEST_CLAIM = 366 * 86_400
MOST_USD = 1_000_000

KEY = Text(1, MAX_KEY, r"[^\x00-\x1f\x7f-\x9f]+", f"1 to {MAX_KEY} characters, none of them a control character")
NAME = Text(1, 128, r"[A-Za-z0-9_.:@+-]+", "letters, digits and _ . : @ + -")
WORD = Text(1, 255)
LINE = Text(0, 4096)
LEASE = Integer(1, LONGEST_LEASE)
METADATA = Anything("Kept with the key. A string run_id in it puts what becomes of the lease into that run's timeline.")
RESULT = Anything("What the work came to.")
LIMIT = Integer(1, 1000, default=100)
OFFSET = Integer(0, 1_000_000, default=0)
DAY = Text(10, 10, r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "a day like 2026-11-22")
SCOPE: dict[str, Kind] = {"scope_id": Text(1, 128, NAME.pattern, NAME.about)}

_HOLDER: dict[str, Kind] = {"key": KEY, "lease_id": KEY}
_POLICY: dict[str, Kind] = {
    "agent_id": NAME,
    "max_actions_per_hour": Maybe(Integer(0, 1_000_000_000)),
    "max_spend_usd_per_day": Maybe(Number(0, MOST_USD)),
    "allowed_tools": Maybe(Items(NAME, 1000)),
    "blocked_tools": Maybe(Items(NAME, 1000)),
    "max_calls_per_tool": Maybe(Members(NAME, Integer(0, 1_000_000_000), 1000)),
    "pricing_rules": Maybe(Items(Shape({"tool": WORD, "usd": Number(0, MOST_USD)}, ("tool", "usd")), 1000)),
    "name": LINE,
    "description": LINE,
}
_TOOL: dict[str, Kind] = {
    "name": NAME,
    "scope_id": NAME,
    "enabled": Flag(),
    "risk_level": Maybe(Choice(("low", "medium", "high", "critical"))),
    "description": LINE,
    "auth": Maybe(Anything("A member secret is not stored.")),
}
_EVENT: dict[str, Kind] = {
    "run_id": WORD,
    "type": WORD,
    "ts": Integer(-(1 << 53), 1 << 53),
    "status": WORD,
    "duration_ms": Integer(0, 1 << 53),
    "step": WORD,
    "tool": WORD,
    "req_id": WORD,
    "lease_id": WORD,
    "agent_id": WORD,
    "message": LINE,
    "data": Anything(),
}
_KEY_RUN = Shape({"key": KEY, "ttl": LEASE, "metadata": METADATA}, ("key",))
_TOOL_RUN = Shape(
    {"agent_id": NAME, "tool": NAME, "args": Anything(), "spend_usd": Number(0, MOST_USD)}, ("agent_id", "tool")
)
_REASON = Shape({"reason": LINE})


class Route(Record):
    """One method of one path. ``body`` is the kind of its JSON body; ``body_optional``: there need not be one.

    ``faults`` are the codes that it answers with besides those that all do. ``answer`` names members of the document
    that it answers with, with their JSON types.
    """

    method: str
    path: str
    handler: Handler
    answer: Mapping[str, str]
    query: Shape = Shape({})
    body: Kind | None = None
    body_optional: bool = False
    faults: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The operation's id."""
        return self.handler.__name__

    @property
    def about(self) -> str:
        """What it does, from the docstring of its handler."""
        return " ".join((self.handler.__doc__ or "").split())

    @property
    def variables(self) -> list[str]:
        """The names in its path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


_PATH_KINDS: dict[str, Text] = {"agent_id": NAME, "name": NAME, "run_id": WORD}

_RUN = {
    "ok": "boolean",
    "status": "string",
    "key": "string",
    "lease_id": "string|null",
    "version": "integer",
    "ttl_left": "integer|null",
    "first_seen_at": "string|null",
    "done_at": "string|null",
    "result_hash": "string|null",
    "error_code": "string|null",
    "retry_after_sec": "integer|null",
}
_LEASED = {**_RUN, "ttl": "integer", "charged": "integer", "result": "object|null"}
_ENDED = {"ok": "boolean", "status": "string", "key": "string", "lease_id": "string"}
_LIST = {"items": "array", "limit": "integer", "offset": "integer"}
_NAMED = {"items": "array", "next": "string|null"}
_POLICY_TOLD = {"agent_id": "string", "policy": "object", "version": "integer", "updated_at": "string"}
_AGENT_TOLD = {
    "agent_id": "string",
    "is_enabled": "boolean",
    "disabled_reason": "string|null",
    "disabled_at": "string|null",
}
_TOOL_TOLD = {"name": "string", "scope_id": "string", "enabled": "boolean", "version": "integer"}
_USAGE = {"kind": "string", "period": "string", "usage": "integer", "limit": "integer|null"}
_PREFERENCES = dict.fromkeys(account.PREFERENCES, "boolean")
_PAGED = Shape({"limit": LIMIT, "offset": OFFSET})
_BY_NAME: dict[str, Kind] = {
    "limit": Integer(1, 1000, default=1000),
    "after": Text(0, 128, r"[A-Za-z0-9_.:@+-]*", NAME.about),
}
_LOST = ("lease_lost", "not_found")


async def ai_run(call: Call) -> Answer:
    """With a key: take its lease, like /v1/ai/lease. With an agent and a tool: decide on the call. Nothing is run."""
    return await (locks.lease(call) if "key" in call.body else gate.run_tool(call))


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/check-lock",
        locks.check_lock,
        {"success": "boolean", "status": "string", "key": "string", "ttl": "integer", "first_seen_at": "string"},
        body=Shape({"key": KEY, "ttl": Integer(1, LONGEST_CLAIM), "metadata": METADATA}, ("key",)),
        faults=("duplicate",),
    ),
    Route("POST", "/v1/ai/run", ai_run, {"ok": "boolean"}, body=Either((_KEY_RUN, _TOOL_RUN))),
    Route("POST", "/v1/ai/lease", locks.lease, _LEASED, body=_KEY_RUN),
    Route(
        "POST",
        "/v1/ai/extend",
        locks.extend,
        {**_ENDED, "ttl": "integer", "ttl_left": "integer"},
        body=Shape({**_HOLDER, "ttl": LEASE}, ("key", "lease_id")),
        faults=_LOST,
    ),
    Route(
        "POST",
        "/v1/ai/complete",
        locks.complete,
        {**_RUN, **_ENDED},
        body=Shape({**_HOLDER, "result": Maybe(RESULT), "result_hash": WORD}, ("key", "lease_id")),
        faults=_LOST,
    ),
    Route(
        "POST",
        "/v1/ai/fail",
        locks.fail,
        {**_RUN, **_ENDED},
        body=Shape({**_HOLDER, "error_code": WORD, "error_hash": WORD}, ("key", "lease_id", "error_code")),
        faults=_LOST,
    ),
    Route(
        "POST",
        "/v1/ai/cancel",
        locks.cancel,
        _ENDED,
        body=Shape({**_HOLDER, "reason": LINE}, ("key", "lease_id")),
        faults=_LOST,
    ),
    Route("GET", "/v1/ai/status", locks.status, _RUN, query=Shape({"key": KEY}, ("key",))),
    Route(
        "GET",
        "/v1/ai/result",
        locks.result,
        {"ok": "boolean", "status": "string", "key": "string", "result": "object|null"},
        query=Shape({"key": KEY}, ("key",)),
    ),
    Route("GET", "/v1/me", account.me, {"account": "string", "plan": "string", "key": "object", **_PREFERENCES}),
    Route(
        "POST",
        "/v1/me/notifications",
        account.put_notifications,
        _PREFERENCES,
        body=Shape(dict.fromkeys(account.PREFERENCES, Flag()), least=1),
    ),
    Route(
        "GET",
        "/v1/usage",
        account.usage,
        _USAGE,
        query=Shape({"kind": Choice(tuple(account.KINDS), default="make")}),
    ),
    Route("GET", "/v1/usage/all", account.usage_all, dict.fromkeys(account.KINDS, "object")),
    Route("GET", "/v1/events", account.list_events, _LIST, query=_PAGED),
    Route(
        "POST",
        "/v1/events",
        account.post_event,
        {"ok": "boolean", "number": "integer", "run_id": "string", "type": "string"},
        body=Shape(_EVENT, ("run_id", "type"), extra=True),
    ),
    Route(
        "GET",
        "/v1/runs/{run_id}",
        account.run_timeline,
        {**_LIST, "run_id": "string", "total": "integer"},
        query=_PAGED,
    ),
    Route(
        "GET",
        "/v1/metrics",
        account.metrics,
        {"from_day": "string", "to_day": "string", "days": "array", "process": "object"},
        query=Shape({"from_day": DAY, "to_day": DAY}),
    ),
    Route("GET", "/v1/policies", agents.list_policies, _NAMED, query=Shape(_BY_NAME)),
    Route("POST", "/v1/policies", agents.put_policy, _POLICY_TOLD, body=Shape(_POLICY, ("agent_id",))),
    Route("GET", "/v1/policies/{agent_id}", agents.get_policy, _POLICY_TOLD, faults=("not_found",)),
    Route("POST", "/v1/policies/{agent_id}", agents.put_policy, _POLICY_TOLD, body=Shape(_POLICY)),
    Route(
        "POST",
        "/v1/policies/{agent_id}/from-template",
        agents.policy_from_template,
        _POLICY_TOLD,
        body=Shape(
            {"agent_id": NAME, "template": Choice(tuple(TEMPLATES)), "overrides": Maybe(Shape(_POLICY))}, ("template",)
        ),
    ),
    Route("POST", "/v1/agents/{agent_id}/enable", agents.enable_agent, _AGENT_TOLD, body=_REASON, body_optional=True),
    Route("POST", "/v1/agents/{agent_id}/disable", agents.disable_agent, _AGENT_TOLD, body=_REASON, body_optional=True),
    Route("GET", "/v1/agents/{agent_id}/logs", agents.agent_logs, _LIST, query=_PAGED),
    Route(
        "GET",
        "/v1/agents/{agent_id}/metrics",
        agents.agent_metrics,
        {"agent_id": "string", "period": "string", "total_actions": "integer", "blocked_actions": "integer"},
        query=Shape({"period": Choice(("hour", "day", "week"), default="day")}),
    ),
    Route(
        "POST",
        "/v1/tools",
        agents.create_tool,
        _TOOL_TOLD,
        body=Shape(_TOOL, ("name",), extra=True),
        faults=("tool_exists",),
    ),
    Route("GET", "/v1/tools", agents.list_tools, _NAMED, query=Shape({**SCOPE, **_BY_NAME})),
    Route("GET", "/v1/tools/{name}", agents.get_tool, _TOOL_TOLD, query=Shape(SCOPE), faults=("not_found",)),
    Route(
        "DELETE",
        "/v1/tools/{name}",
        agents.delete_tool,
        {"ok": "boolean", "deleted": "boolean", "name": "string", "scope_id": "string"},
        query=Shape(SCOPE),
        faults=("not_found",),
    ),
    Route(
        "POST",
        "/v1/tools/{name}/toggle",
        agents.toggle_tool,
        _TOOL_TOLD,
        query=Shape(SCOPE),
        body=Shape({"enabled": Flag()}, ("enabled",)),
        faults=("not_found",),
    ),
)


class Found(Record):
    """What a path leads to: its routes by method, and the values of its variables."""

    routes: Mapping[str, Route]
    values: Mapping[str, str]


class _Node:
    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.names: list[str] = []
        self.routes: dict[str, Route] = {}


class Router:
    """Finds routes by path, segment by segment: a ``%2F`` is no slash. Literal segments win over variables."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._root = _Node()
        for route in routes:
            node = self._root
            for part in route.path.split("/")[1:]:
                if part.startswith("{"):
                    node.variable = node.variable or _Node()
                    node = node.variable
                else:
                    node = node.children.setdefault(part, _Node())
            node.routes[route.method] = route
            node.names = route.variables

    def find(self, path: bytes) -> Found | None:
        """What the raw path leads to, or None. The caller checks the values (``path_kind``)."""
        node, values = self._root, []
        for raw in path.split(b"/")[1:]:
            try:
                part = unquote_to_bytes(raw).decode()
            except UnicodeDecodeError:
                return None
            following = node.children.get(part)
            if following is None:
                if node.variable is None or not part:
                    return None
                values.append(part)
                following = node.variable
            node = following
        return Found(node.routes, dict(zip(node.names, values, strict=True))) if node.routes else None


def path_kind(name: str) -> Text:
    """The kind of a path's variable."""
    return _PATH_KINDS[name]

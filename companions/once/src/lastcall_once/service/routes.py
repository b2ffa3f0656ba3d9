"""The endpoints: one table, by which requests are found, checked and described (``openapi``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote_to_bytes

from lastcall_once._record import Record
from lastcall_once.guard import MAX_KEY
from lastcall_once.service import account, agents, locks, tool_authorization
from lastcall_once.service.core import Answer, Call
from lastcall_once.service.policies import TEMPLATES
from lastcall_once.service.validators import (
    AnyObject,
    AnyOf,
    Array,
    Boolean,
    Enumeration,
    Integer,
    Map,
    Nullable,
    Number,
    Object,
    String,
    Validator,
)

Handler = Callable[[Call], Awaitable[Answer]]

LONGEST_LEASE = 86_400  # seconds
LONGEST_CLAIM = 366 * 86_400
MOST_USD = 1_000_000

KEY = String(1, MAX_KEY, r"[^\x00-\x1f\x7f-\x9f]+", f"1 to {MAX_KEY} characters, none of them a control character")
NAME = String(1, 128, r"[A-Za-z0-9_.:@+-]+", "letters, digits and _ . : @ + -")
WORD = String(1, 255)
LINE = String(0, 4096)
LEASE = Integer(1, LONGEST_LEASE)
METADATA = AnyObject(
    "Kept with the key. A string run_id in it puts what becomes of the lease into that run's timeline."
)
RESULT = AnyObject("What the work came to.")
LIMIT = Integer(1, 1000, default=100)
OFFSET = Integer(0, 1_000_000, default=0)
DAY = String(10, 10, r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "a day like 2026-11-22")
SCOPE: dict[str, Validator] = {"scope_id": String(1, 128, NAME.pattern, NAME.about)}

_HOLDER: dict[str, Validator] = {"key": KEY, "lease_id": KEY}
_POLICY: dict[str, Validator] = {
    "agent_id": NAME,
    "max_actions_per_hour": Nullable(Integer(0, 1_000_000_000)),
    "max_spend_usd_per_day": Nullable(Number(0, MOST_USD)),
    "allowed_tools": Nullable(Array(NAME, 1000)),
    "blocked_tools": Nullable(Array(NAME, 1000)),
    "max_calls_per_tool": Nullable(Map(NAME, Integer(0, 1_000_000_000), 1000)),
    "pricing_rules": Nullable(Array(Object({"tool": WORD, "usd": Number(0, MOST_USD)}, ("tool", "usd")), 1000)),
    "name": LINE,
    "description": LINE,
}
_TOOL: dict[str, Validator] = {
    "name": NAME,
    "scope_id": NAME,
    "enabled": Boolean(),
    "risk_level": Nullable(Enumeration(("low", "medium", "high", "critical"))),
    "description": LINE,
    "auth": Nullable(AnyObject("A member secret is not stored.")),
}
_EVENT: dict[str, Validator] = {
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
    "data": AnyObject(),
}
_KEY_RUN = Object({"key": KEY, "ttl": LEASE, "metadata": METADATA}, ("key",))
_TOOL_RUN = Object(
    {"agent_id": NAME, "tool": NAME, "args": AnyObject(), "spend_usd": Number(0, MOST_USD)}, ("agent_id", "tool")
)
_REASON = Object({"reason": LINE})


class Route(Record):
    """One method of one path. ``body`` is the kind of its JSON body; ``body_optional``: there need not be one.

    ``faults`` are the codes that it answers with besides those that all do. ``answer`` names members of the document
    that it answers with, with their JSON types.
    """

    method: str
    path: str
    handler: Handler
    answer: Mapping[str, str]
    query: Object = Object({})
    body: Validator | None = None
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


_PATH_VALIDATORS: dict[str, String] = {"agent_id": NAME, "name": NAME, "run_id": WORD}

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
_POLICY_ANSWER = {"agent_id": "string", "policy": "object", "version": "integer", "updated_at": "string"}
_AGENT_ANSWER = {
    "agent_id": "string",
    "is_enabled": "boolean",
    "disabled_reason": "string|null",
    "disabled_at": "string|null",
}
_TOOL_ANSWER = {"name": "string", "scope_id": "string", "enabled": "boolean", "version": "integer"}
_USAGE = {"kind": "string", "period": "string", "usage": "integer", "limit": "integer|null"}
_PREFERENCES = dict.fromkeys(account.PREFERENCES, "boolean")
_PAGED = Object({"limit": LIMIT, "offset": OFFSET})
_BY_NAME: dict[str, Validator] = {
    "limit": Integer(1, 1000, default=1000),
    "after": String(0, 128, r"[A-Za-z0-9_.:@+-]*", NAME.about),
}
_LOST = ("lease_lost", "not_found")


async def ai_run(call: Call) -> Answer:
    """With a key: take its lease, like /v1/ai/lease. With an agent and a tool: decide on the call. Nothing is run."""
    return await (locks.lease(call) if "key" in call.body else tool_authorization.authorize(call))


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/check-lock",
        locks.check_lock,
        {"success": "boolean", "status": "string", "key": "string", "ttl": "integer", "first_seen_at": "string"},
        body=Object({"key": KEY, "ttl": Integer(1, LONGEST_CLAIM), "metadata": METADATA}, ("key",)),
        faults=("duplicate",),
    ),
    Route("POST", "/v1/ai/run", ai_run, {"ok": "boolean"}, body=AnyOf((_KEY_RUN, _TOOL_RUN))),
    Route("POST", "/v1/ai/lease", locks.lease, _LEASED, body=_KEY_RUN),
    Route(
        "POST",
        "/v1/ai/extend",
        locks.extend,
        {**_ENDED, "ttl": "integer", "ttl_left": "integer"},
        body=Object({**_HOLDER, "ttl": LEASE}, ("key", "lease_id")),
        faults=_LOST,
    ),
    Route(
        "POST",
        "/v1/ai/complete",
        locks.complete,
        {**_RUN, **_ENDED},
        body=Object({**_HOLDER, "result": Nullable(RESULT), "result_hash": WORD}, ("key", "lease_id")),
        faults=_LOST,
    ),
    Route(
        "POST",
        "/v1/ai/fail",
        locks.fail,
        {**_RUN, **_ENDED},
        body=Object({**_HOLDER, "error_code": WORD, "error_hash": WORD}, ("key", "lease_id", "error_code")),
        faults=_LOST,
    ),
    Route(
        "POST",
        "/v1/ai/cancel",
        locks.cancel,
        _ENDED,
        body=Object({**_HOLDER, "reason": LINE}, ("key", "lease_id")),
        faults=_LOST,
    ),
    Route("GET", "/v1/ai/status", locks.status, _RUN, query=Object({"key": KEY}, ("key",))),
    Route(
        "GET",
        "/v1/ai/result",
        locks.result,
        {"ok": "boolean", "status": "string", "key": "string", "result": "object|null"},
        query=Object({"key": KEY}, ("key",)),
    ),
    Route("GET", "/v1/me", account.me, {"account": "string", "plan": "string", "key": "object", **_PREFERENCES}),
    Route(
        "POST",
        "/v1/me/notifications",
        account.put_notifications,
        _PREFERENCES,
        body=Object(dict.fromkeys(account.PREFERENCES, Boolean()), least=1),
    ),
    Route(
        "GET",
        "/v1/usage",
        account.usage,
        _USAGE,
        query=Object({"kind": Enumeration(tuple(account.KINDS), default="make")}),
    ),
    Route("GET", "/v1/usage/all", account.usage_all, dict.fromkeys(account.KINDS, "object")),
    Route("GET", "/v1/events", account.list_events, _LIST, query=_PAGED),
    Route(
        "POST",
        "/v1/events",
        account.post_event,
        {"ok": "boolean", "number": "integer", "run_id": "string", "type": "string"},
        body=Object(_EVENT, ("run_id", "type"), extra=True),
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
        query=Object({"from_day": DAY, "to_day": DAY}),
    ),
    Route("GET", "/v1/policies", agents.list_policies, _NAMED, query=Object(_BY_NAME)),
    Route("POST", "/v1/policies", agents.put_policy, _POLICY_ANSWER, body=Object(_POLICY, ("agent_id",))),
    Route("GET", "/v1/policies/{agent_id}", agents.get_policy, _POLICY_ANSWER, faults=("not_found",)),
    Route("POST", "/v1/policies/{agent_id}", agents.put_policy, _POLICY_ANSWER, body=Object(_POLICY)),
    Route(
        "POST",
        "/v1/policies/{agent_id}/from-template",
        agents.policy_from_template,
        _POLICY_ANSWER,
        body=Object(
            {"agent_id": NAME, "template": Enumeration(tuple(TEMPLATES)), "overrides": Nullable(Object(_POLICY))},
            ("template",),
        ),
    ),
    Route("POST", "/v1/agents/{agent_id}/enable", agents.enable_agent, _AGENT_ANSWER, body=_REASON, body_optional=True),
    Route(
        "POST", "/v1/agents/{agent_id}/disable", agents.disable_agent, _AGENT_ANSWER, body=_REASON, body_optional=True
    ),
    Route("GET", "/v1/agents/{agent_id}/logs", agents.agent_logs, _LIST, query=_PAGED),
    Route(
        "GET",
        "/v1/agents/{agent_id}/metrics",
        agents.agent_metrics,
        {"agent_id": "string", "period": "string", "total_actions": "integer", "blocked_actions": "integer"},
        query=Object({"period": Enumeration(("hour", "day", "week"), default="day")}),
    ),
    Route(
        "POST",
        "/v1/tools",
        agents.create_tool,
        _TOOL_ANSWER,
        body=Object(_TOOL, ("name",), extra=True),
        faults=("tool_exists",),
    ),
    Route("GET", "/v1/tools", agents.list_tools, _NAMED, query=Object({**SCOPE, **_BY_NAME})),
    Route("GET", "/v1/tools/{name}", agents.get_tool, _TOOL_ANSWER, query=Object(SCOPE), faults=("not_found",)),
    Route(
        "DELETE",
        "/v1/tools/{name}",
        agents.delete_tool,
        {"ok": "boolean", "deleted": "boolean", "name": "string", "scope_id": "string"},
        query=Object(SCOPE),
        faults=("not_found",),
    ),
    Route(
        "POST",
        "/v1/tools/{name}/toggle",
        agents.toggle_tool,
        _TOOL_ANSWER,
        query=Object(SCOPE),
        body=Object({"enabled": Boolean()}, ("enabled",)),
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
        """What the raw path leads to, or None. The caller checks the values (``path_validator``)."""
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


def path_validator(name: str) -> String:
    """The kind of a path's variable."""
    return _PATH_VALIDATORS[name]

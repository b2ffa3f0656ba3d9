"""The OpenAPI 3.1 description, made from the table of routes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from lastcall_once._version import __version__
from lastcall_once.service.faults import CODES
from lastcall_once.service.routes import ROUTES, Route, path_validator

ALWAYS = ("api_key_required", "api_key_invalid", "api_key_revoked", "invalid_request", "store_unavailable", "draining")
WITH_BODY = ("invalid_json", "too_large", "unsupported_media_type")
_ERROR = "#/components/schemas/Error"


@cache
def document() -> Mapping[str, Any]:
    """The whole description, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "once",
            "version": __version__,
            "description": "At most one execution per key and lease; permissions and spend caps of agents. Errors have "
            "a stable code; a key or a lease is one account's own.",
        },
        "paths": paths,
        "security": [{"key": []}],
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "From lastcall-once key create."}
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["code", "detail"],
                    "properties": {
                        "code": {"type": "string", "enum": list(CODES)},
                        "detail": {
                            "type": "object",
                            "required": ["code", "message"],
                            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
                        },
                    },
                }
            },
        },
    }


def faults_of(route: Route) -> list[str]:
    """All codes that a route may answer with."""
    found = [*ALWAYS, *route.faults]
    if route.variables and "not_found" not in found:
        found.append("not_found")  # of a path with an empty segment, say
    if route.body is not None:
        found += WITH_BODY
    return found


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.about,
        "responses": {"200": _answer(route), **_errors(route)},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": path_validator(name).schema()}
        for name in route.variables
    ]
    parameters += [
        {"name": name, "in": "query", "required": name in route.query.required, "schema": validator.schema()}
        for name, validator in route.query.fields.items()
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": route.body.schema()}},
        }
    return operation


def _operation_id(route: Route) -> str:
    """The handler's name; a handler that two paths share is told apart by whether its path has a variable."""
    shared = sum(other.handler is route.handler for other in ROUTES) > 1
    return f"{route.name}_of" if shared and route.variables else route.name


def _answer(route: Route) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": list(route.answer),
        "properties": {name: {"type": _types(kind)} for name, kind in route.answer.items()},
    }
    return {"description": "Done.", "content": {"application/json": {"schema": schema}}}


def _types(kind: str) -> str | list[str]:
    return kind.split("|") if "|" in kind else kind


def _errors(route: Route) -> dict[str, Any]:
    by_status: dict[str, list[str]] = {}
    for code in faults_of(route):
        by_status.setdefault(str(CODES[code][0]), []).append(code)
    return {
        status: {
            "description": " ".join(f"{code}: {CODES[code][1]}" for code in codes),
            "content": {"application/json": {"schema": {"$ref": _ERROR}}},
        }
        for status, codes in sorted(by_status.items())
    }

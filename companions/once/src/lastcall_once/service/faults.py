"""What the service answers when it does not do what it was asked: one table of codes, and the exception for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# code: status, meaning. Both are API.
CODES: dict[str, tuple[int, str]] = {
    "invalid_json": (400, "The body is no JSON text in UTF-8."),
    "api_key_required": (401, "There is no API key: send Authorization: Bearer KEY."),
    "api_key_invalid": (401, "The API key is unknown."),
    "api_key_revoked": (403, "The API key was revoked."),
    "not_found": (404, "There is no such thing."),
    "method_not_allowed": (405, "The path has other methods, which Allow names."),
    "duplicate": (409, "The key was seen before."),
    "lease_lost": (409, "The lease is not this lease_id's, or not any more."),
    "tool_exists": (409, "A tool of this name is registered in this scope."),
    "too_large": (413, "The body has more than 1 MiB; an event, a policy or a tool more than 64 KiB."),
    "unsupported_media_type": (415, "A body has to be application/json."),
    "invalid_request": (422, "A field or parameter is missing or cannot be used; detail.errors names it."),
    "store_unavailable": (503, "The store failed; nothing can be said about the outcome. Try again."),
    "draining": (503, "The server is about to stop and begins no new work. Nothing was done. Try again."),
}


class Fault(Exception):
    """Answer with the status of ``code``, and with ``message`` for people.

    ``extras`` are more members of ``detail``, ``headers`` more headers of the response.
    """

    def __init__(
        self, code: str, message: str = "", *, headers: tuple[tuple[bytes, bytes], ...] = (), **extras: Any
    ) -> None:
        self.status, meaning = CODES[code]
        super().__init__(message or meaning)
        self.code = code
        self.extras = extras
        self.headers = headers
        if self.status == 503:
            self.headers = (*headers, (b"retry-after", b"1"))

    @property
    def body(self) -> Mapping[str, Any]:
        """The document: ``code``, and ``detail`` with the code, the message and more."""
        return {"code": self.code, "detail": {"code": self.code, "message": str(self), **self.extras}}

"""The answers to keyed requests that the application does not answer: problem+json (RFC 9457) with stable codes."""

from __future__ import annotations

import json

from lastcall_once._record import Record
from lastcall_once._types import Send

KEY_REQUIRED = "once_key_required"
KEY_INVALID = "once_key_invalid"
CALLER_UNKNOWN = "once_caller_unknown"
IN_FLIGHT = "once_in_flight"
MISMATCH = "once_mismatch"
OTHER_CALLER = "once_other_caller"
NOT_REPLAYABLE = "once_not_replayable"
UNKNOWN = "once_unknown"
STORE_DOWN = "once_store_down"
DRAINING = "once_draining"

# code: status, title. Both are API, and so is the type that is made of the code.
CODES: dict[str, tuple[int, str]] = {
    KEY_REQUIRED: (400, "This operation needs an Idempotency-Key"),
    KEY_INVALID: (400, "The Idempotency-Key is not usable"),
    CALLER_UNKNOWN: (400, "It cannot be told whose Idempotency-Key this is"),
    IN_FLIGHT: (409, "A request with this Idempotency-Key is still being worked on"),
    MISMATCH: (422, "This Idempotency-Key was used for a different request"),
    OTHER_CALLER: (409, "This Idempotency-Key was used by somebody else, or from elsewhere"),
    NOT_REPLAYABLE: (409, "The request was carried out, but its answer was not kept"),
    UNKNOWN: (409, "It is not known how the first request with this Idempotency-Key ended"),
    STORE_DOWN: (503, "The record of Idempotency-Keys cannot be reached"),
    DRAINING: (503, "The server is about to stop, and begins no new work"),
}


# Clients made by generators take every 409 for a lock, and try twice more, unless they are told not to.
_FINAL = ((b"x-should-retry", b"false"), (b"stripe-should-retry", b"false"))


class Problem(Record):
    """One answer of the middleware's own. ``retry_after`` is in whole seconds, 0 for none."""

    code: str
    detail: str
    status: int
    retry_after: int = 0

    @property
    def body(self) -> bytes:
        """The problem+json document: ``type``, ``title``, ``status``, ``detail``, and the code as ``code``."""
        document = {
            "type": f"urn:lastcall:problem:{self.code}",
            "title": CODES[self.code][1],
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        return json.dumps(document).encode()


def problem(code: str, detail: str, *, retry_after: int = 0, status: int | None = None) -> Problem:
    """The problem with this code, and with its status unless another is given. Raises KeyError for an unknown code."""
    return Problem(code, detail, CODES[code][0] if status is None else status, retry_after)


async def answer(send: Send, problem: Problem) -> None:
    """Send ``problem`` as the complete response."""
    body = problem.body
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if problem.retry_after:
        headers.append((b"retry-after", b"%d" % problem.retry_after))
    elif problem.status == 409:
        headers += _FINAL
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

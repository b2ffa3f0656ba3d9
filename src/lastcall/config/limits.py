"""The options of what load balancers expect: how much one client, one connection or one request may have."""

from __future__ import annotations

import math
from typing import Final

from lastcall.config.kinds import LARGEST_SIZE, Count, Seconds
from lastcall.config.option import Option

LIMITS: Final = (
    Option(
        name="timeout_request",
        kind=Seconds(optional=True, positive=True),
        default=math.inf,
        group="Timeouts",
        help=(
            "Time for a request, from its complete head to the last byte of its response: then it gets 503, or its "
            "response is cut if that has begun, and the application is told that the client has left."
        ),
    ),
    Option(
        name="max_connection_age",
        kind=Seconds(optional=True, positive=True),
        default=math.inf,
        group="Timeouts",
        help=(
            "A connection older than this, and up to a tenth more, ends with its next answer, or soon when it is idle. "
            "No request and no stream is cut for it."
        ),
    ),
    Option(
        name="limit_connections_per_ip",
        kind=Count(optional=True, least=1),
        default=None,
        group="Limits",
        help=(
            "Open connections of one address (of IPv6, one /64) to one worker; more are reset when they come. Unix "
            "sockets and the proxies of `forwarded_allow_ips`, by default 127.0.0.1 and ::1, are not counted."
        ),
    ),
    Option(
        name="limit_requests_per_connection",
        kind=Count(optional=True, least=1, most=LARGEST_SIZE),
        default=None,
        group="Limits",
        help="Requests, and up to a tenth more, after which a connection is closed. The last answer says so.",
    ),
)

"""Workers that are replaced under kept-alive clients."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.scenarios.workers_reload import CLIENTS, reload_under
from lastcall_drill.verdicts import Basis


@scenario(
    "workers",
    "restart",
    deadline=90.0,
    id="workers-reload-kept-alive",
    title="A reload by SIGHUP closes no kept-alive connection without a word",
    group="Several workers",
    clause='RFC 9112 9.6 has "close" for a server that is going to close. A connection that is closed without it is '
    "lost to a request that is on its way.",
    basis=Basis.VIEW,
    reason="Load balancers keep their connections. A request that meets the close is an error if it is no idempotent "
    "one, and a retry if it is.",
    rule="As in workers-reload, with 4 clients that keep their connections and ask again 0.03 s after each answer: "
    "each connection is kept, or its last answer says Connection: close; no request is without answer.",
    tolerance="5 s for each request",
)
def workers_reload_kept_alive(harness: Harness) -> str:
    """The same on connections that are kept."""
    return reload_under(harness, kept=CLIENTS)

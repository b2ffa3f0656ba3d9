"""Workers that are replaced after some requests, under kept-alive clients."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.traffic import Traffic
from lastcall_drill.verdicts import Basis

LIMIT = 30
CLIENTS = 4
REQUESTS = 400


@scenario(
    "workers",
    "max_requests",
    signals=False,
    id="workers-recycle-kept-alive",
    title="Recycling workers closes no kept-alive connection without a word",
    group="Several workers",
    clause='RFC 9112 9.6 has "close" for a server that is going to close. A connection that is closed without it is '
    "lost to a request that is on its way.",
    basis=Basis.VIEW,
    reason="Recycling happens all day, under full load, behind a load balancer that keeps its connections.",
    rule="2 workers that are replaced after 30 requests; 4 clients ask 400 times or more on connections that they "
    "keep: each is kept, or its last answer says Connection: close; no request is without answer.",
    tolerance="5 s for each request, 30 s for all",
    sources=("benoitc/gunicorn#3038",),
)
def workers_recycle_kept_alive(harness: Harness) -> str:
    """Ask and ask."""
    harness.serve(workers=2, max_requests=LIMIT)
    with Traffic(harness, kept=CLIENTS) as traffic:
        harness.wait_for(lambda: traffic.sent >= REQUESTS and len(harness.workers_started()) > 2, 30.0)
    traffic.must_lose_nothing()
    workers = len(harness.workers_started())
    if workers <= 2:
        raise Failed(f"{traffic.sent} requests were answered, and no worker was replaced")
    return (
        f"all {traffic.sent} requests were answered, by {workers} workers one after another; "
        f"{traffic.told} connections ended after Connection: close"
    )

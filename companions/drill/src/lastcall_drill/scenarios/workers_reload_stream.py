"""Workers that are replaced while they stream."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

STREAMS = 6


@scenario(
    "workers",
    "restart",
    id="workers-reload-stream",
    title="A reload by SIGHUP does not cut a stream that ends within the grace",
    group="Several workers",
    clause="The server's own grace: what is under way may finish in it, in a worker that is replaced too.",
    basis=Basis.VIEW,
    reason="A token stream that is cut by a deploy is work lost, and paid for.",
    rule="6 streams of 3 s on 2 workers with a grace of 6 s, and SIGHUP: all are complete.",
    tolerance="none",
)
def workers_reload_stream(harness: Harness) -> str:
    """Open streams, SIGHUP."""
    harness.serve(workers=2, grace=6)
    harness.must_start_workers(2)
    opened = [harness.stream(f"/fin?n=15&every=0.2&id={number}", f"client-{number}") for number in range(STREAMS)]
    workers = {event.detail for event in harness.events("note") if event.who.startswith("/fin")}
    harness.signal(signal.SIGHUP)
    for client, response in opened:
        client.wait(response, harness.long(6.0 - harness.since_signal()))
    complete = sum(response.complete for _, response in opened)
    if complete < STREAMS:
        first = next(response for _, response in opened if not response.complete)
        raise Failed(
            f"{complete} of {STREAMS} streams were complete; of another {first.outcome}, "
            f"{harness.since_signal(first.ended):.2f} s after the signal"
        )
    return f"all {STREAMS} streams were complete, on {len(workers)} {'workers' if len(workers) > 1 else 'worker'}"

"""Streams on several workers."""

import signal

from lastcall_drill.client import HTTPClient
from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

STREAMS = 4
CLIENTS, BURSTS = 12, 4


@scenario(
    "workers",
    id="workers-drain",
    title="All workers drain",
    group="Several workers",
    clause="The server's own grace: what is under way may finish in it, in every worker.",
    basis=Basis.VIEW,
    reason="The first worker that is done must not take the others with it.",
    rule="Of 2 workers one has streams of 2 s, the other nothing to do: all streams are complete, in a grace of 5 s.",
    tolerance="none",
)
def workers_drain(harness: Harness) -> str:
    """Open streams, SIGTERM to the parent."""
    return drain(harness, group=False)


def drain(harness: Harness, *, group: bool) -> str:
    """Streams on one of two workers, and SIGTERM to the parent, or to all of them."""
    harness.serve(workers=2)
    found = by_worker(harness)
    # The connections of the other one are closed, so that it has nothing to do.
    chosen, *others = sorted(found.values(), key=len, reverse=True)
    for client in [*chosen[STREAMS:], *(client for other in others for client in other)]:
        client.close()
    opened = [(client, client.request(f"/fin?n=10&every={harness.long(0.2):g}")) for client in chosen[:STREAMS]]
    for client, response in opened:
        client.wait_body(response, 1, harness.long(3.0))
    harness.signal(signal.SIGTERM, group=group)
    for client, response in opened:
        client.wait(response, harness.long(4.0 - harness.since_signal()))
    complete = sum(response.complete for _, response in opened)
    if complete < len(opened):
        first = next(response for _, response in opened if not response.complete)
        seen = f"{first.outcome}, {harness.since_signal(first.ended):.2f} s after the signal"
        raise Failed(f"{complete} of {len(opened)} streams were complete; of another {seen}")
    return f"all {len(opened)} streams were complete"


def by_worker(harness: Harness) -> dict[int, list[HTTPClient]]:
    """Connections that are kept alive, by the process that serves them: of two workers, if they can be reached."""
    found: dict[int, list[HTTPClient]] = {}
    for burst in range(BURSTS):
        clients = [harness.connect(f"client-{burst}-{number}") for number in range(CLIENTS)]
        asked = [(client, client.request("/pid")) for client in clients]
        for client, response in asked:
            if client.wait(response, harness.long(3.0)):
                found.setdefault(int(response.body), []).append(client)
        if len(found) > 1:
            break
        # Who is blocked lets the other one accept.
        blocker = found[next(iter(found))].pop() if found else harness.connect("blocker")
        blocker.request(f"/block?s={harness.long(0.5):g}&id={burst}")
        harness.wait_event("note", f"/block:{burst}", within=2.0)
    return found

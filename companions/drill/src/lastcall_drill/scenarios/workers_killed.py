"""A worker that dies."""

import os
import signal
from contextlib import suppress

from lastcall_drill.errors import DrillError
from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.scenarios.workers_drain import by_worker
from lastcall_drill.verdicts import Basis


@scenario(
    "workers",
    id="workers-killed",
    title="A worker that dies takes only its own requests with it",
    group="Several workers",
    clause="A worker is a process of its own, so that the others are not concerned.",
    basis=Basis.VIEW,
    reason="The kernel kills one worker for its memory. That must not be the end of the service.",
    rule="Of two workers with a stream of 2 s each one is killed: the other's stream is complete, and 3 s later "
    "requests are answered.",
    tolerance="see the rule",
    sources=("benoitc/gunicorn#3354", "pgjones/hypercorn: run.py"),
)
def workers_killed(harness: Harness) -> str:
    """A stream on each worker, SIGKILL to one of them."""
    harness.serve(workers=2)
    found = by_worker(harness)
    if len(found) < 2:
        raise DrillError("all connections were served by one worker")
    victim, other = sorted(found)[:2]
    opened = {
        pid: (clients[0], clients[0].request(f"/fin?n=10&every={harness.long(0.2):g}"))
        for pid, clients in found.items()
    }
    for client, response in opened.values():
        client.wait_body(response, 1, harness.long(3.0))
    harness.timeline.signal(f"SIGKILL to worker {victim}")
    os.kill(victim, signal.SIGKILL)
    client, response = opened[other]
    if not client.wait(response, harness.long(4.0)):
        when = harness.since_signal(response.ended)
        raise Failed(f"the other worker's stream: {response.outcome}, {when:.2f} s after the kill")
    harness.until(3.0)
    for _ in range(10):
        with suppress(OSError):
            if harness.ask("/ok").status == 200:
                seconds = harness.since_signal()
                return f"the other worker's stream was complete; answered again {seconds:.2f} s after the kill"
        harness.sleep(0.05)
    raise Failed("the other worker's stream was complete; 3 s after the kill no request was answered")

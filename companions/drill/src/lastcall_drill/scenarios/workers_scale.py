"""A worker more, and one less."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.scenarios.workers_reload import CLIENTS
from lastcall_drill.traffic import Traffic
from lastcall_drill.verdicts import Basis

WITHIN = 8.0


@scenario(
    "workers",
    "scale",
    "lifespan",
    id="workers-scale",
    title="One worker more and one less lose no request",
    group="Several workers",
    clause="The signals' purpose: SIGTTIN adds a worker, SIGTTOU stops one in order.",
    basis=Basis.VIEW,
    reason="A service is scaled because it is under load. Fewer workers are no reason to drop anyone.",
    rule="2 workers, 4 clients that ask all the time, each request on a connection of its own; SIGTTIN, then SIGTTOU: "
    "a third worker is ready within 8 s of the one, a worker's lifespan has ended 8 s after the other, and no request "
    "is without answer.",
    tolerance="5 s for each request",
)
def workers_scale(harness: Harness) -> str:
    """Ask and ask, SIGTTIN, SIGTTOU."""
    harness.serve(workers=2)
    harness.must_start_workers(2)
    with Traffic(harness, fresh=CLIENTS) as traffic:
        harness.signal(signal.SIGTTIN)
        if not harness.wait_for(lambda: len(harness.workers_started()) >= 3, WITHIN):
            raise Failed(f"no third worker was ready within {WITHIN:g} s of SIGTTIN")
        more = harness.since_signal()
        harness.sleep(1.0)
        harness.signal(signal.SIGTTOU)
        if not harness.wait_for(lambda: harness.events("lifespan-end"), WITHIN):
            traffic.must_lose_nothing()
            raise Failed(f"no worker had ended its lifespan {WITHIN:g} s after SIGTTOU")
        harness.sleep(1.0)
    traffic.must_lose_nothing()
    return f"all {traffic.sent} requests were answered; the third worker was ready {more:.2f} s after SIGTTIN"

"""A worker that is killed while clients wait for it."""

import os
import signal

from lastcall_drill.errors import DrillError
from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.scenarios.workers_drain import by_worker
from lastcall_drill.verdicts import Basis

QUEUED = 20
WITHIN = 8.0


@scenario(
    "workers",
    id="workers-crash",
    title="A worker that is killed is replaced, and who waits in its queue is answered",
    group="Several workers",
    clause="TCP: who is in the queue of a listener is connected, whichever process was to accept.",
    basis=Basis.VIEW,
    reason="A worker that is stuck, and then killed for its memory, has a queue of clients that nobody has heard yet.",
    rule="One of 2 workers is stopped (SIGSTOP); 20 clients connect and ask; 1 s later it is killed (SIGKILL): all 20 "
    "are answered within 8 s, after which two workers serve, and the other one is still one of them.",
    tolerance="see the rule",
)
def workers_crash(harness: Harness) -> str:
    """SIGSTOP to one of two workers, clients, SIGKILL."""
    harness.serve(workers=2)
    before = by_worker(harness)
    if len(before) < 2:
        raise DrillError("all connections were served by one worker")
    victim, other = sorted(before)[:2]
    for clients in before.values():
        for client in clients:
            client.close()
    os.kill(victim, signal.SIGSTOP)
    opened = [harness.open("/pid", f"queued-{number}") for number in range(QUEUED)]
    harness.sleep(1.0)
    waiting = sum(not response.over for _, response in opened)
    harness.timeline.signal(f"SIGKILL to worker {victim}")
    os.kill(victim, signal.SIGKILL)
    for client, response in opened:
        client.wait(response, harness.long(WITHIN - harness.since_signal()))
    answered = sum(response.complete for _, response in opened)
    if answered < QUEUED:
        first = next(response for _, response in opened if not response.complete)
        raise Failed(f"{answered} of {QUEUED} clients in the queue were answered; of another {first.outcome}")

    def replaced() -> bool:
        return bool(harness.workers_started() - before.keys()) or not harness.server.running

    started = harness.wait_for(replaced, WITHIN - harness.since_signal())
    if not harness.server.running:
        raise Failed(f"all {QUEUED} clients were answered; then the server ended, {harness.exit_words}")
    if not started:
        raise Failed(
            f"all {QUEUED} clients were answered; no worker was started within {WITHIN:g} s in place of the one"
        )
    after = by_worker(harness)
    if other not in after:
        raise Failed(f"all {QUEUED} clients were answered; the other worker does not serve any more")
    if len(after) < 2:
        raise Failed(
            f"all {QUEUED} clients were answered; {harness.since_signal():.1f} s later one worker serves alone"
        )
    return (
        f"all {QUEUED} clients were answered, {waiting} of them after the kill; two workers serve, one of them is new"
    )

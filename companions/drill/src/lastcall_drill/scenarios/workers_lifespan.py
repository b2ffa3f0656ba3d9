"""The lifespan of each worker."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "workers",
    "lifespan",
    id="workers-lifespan",
    title="Each worker's lifespan.shutdown is run to its end",
    group="Several workers",
    clause="ASGI lifespan, shutdown.complete: a server waits for it before it ends.",
    basis=Basis.STANDARD,
    reason="Every worker has a pool of its own to give back.",
    rule="SIGTERM to an idle server with 2 workers, of which one needs 0.5 s for its shutdown, the other 1.5 s: both "
    "are complete.",
    tolerance="3.5 s for the exit",
)
def workers_lifespan(harness: Harness) -> str:
    """SIGTERM."""
    harness.serve(workers=2, shutdown="stagger:0.5")
    started = harness.wait_for(lambda: len(harness.events("ready")) >= 2, 10.0) and harness.events("ready")
    harness.signal()
    seconds = harness.must_exit(5.0)
    ended = {event.who for event in harness.events("lifespan-end")}
    missing = {event.who for event in started or harness.events("ready")} - ended
    if missing:
        raise Failed(
            f"exited {seconds:.2f} s after the signal; {len(ended)} lifespans of {len(ended) + len(missing)} ended"
        )
    return f"all {len(ended)} lifespans ended; exited {seconds:.2f} s after the signal"

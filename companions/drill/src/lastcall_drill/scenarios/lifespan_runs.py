"""The plain case."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="lifespan-runs",
    title="lifespan.shutdown is run to its end",
    group="Lifespan",
    clause="ASGI lifespan, shutdown.complete: a server waits for it before it ends.",
    basis=Basis.STANDARD,
    reason="Pools, queues and locks are given back there.",
    rule="SIGTERM to an idle server: a shutdown that takes 0.5 s ends before the process does.",
    tolerance="3 s for the exit",
    sources=("Kludex/uvicorn#280",),
)
def lifespan_runs(harness: Harness) -> str:
    """SIGTERM to an idle server."""
    harness.serve(shutdown="slow:0.5")
    harness.signal()
    seconds = harness.must_exit(0.5 + 3.0)
    if not harness.events("lifespan-end"):
        begun = "began but did not end" if harness.events("lifespan-shutdown") else "was not run"
        raise Failed(f"exited {seconds:.2f} s after the signal; lifespan.shutdown {begun}")
    return f"lifespan.shutdown was complete before the exit, {seconds:.2f} s after the signal"

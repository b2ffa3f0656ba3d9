"""The plain case."""

from lastcall_drill.rig import Rig
from lastcall_drill.scenario import Failed, scenario


@scenario(
    "lifespan",
    id="lifespan-runs",
    title="lifespan.shutdown is run to its end",
    group="Lifespan",
    clause="ASGI lifespan, shutdown.complete: a server waits for it before it ends.",
    reason="Pools, queues and locks are given back there.",
    rule="SIGTERM to an idle server: a shutdown that takes 0.5 s ends before the process does.",
    tolerance="3 s for the exit",
    sources=("Kludex/uvicorn#280",),
)
def lifespan_runs(rig: Rig) -> str:
    """SIGTERM to an idle server."""
    rig.serve(shutdown="slow:0.5")
    rig.signal()
    seconds = rig.must_exit(0.5 + 3.0)
    if not rig.events("lifespan-end"):
        begun = "began but did not end" if rig.events("lifespan-shutdown") else "was not run"
        raise Failed(f"exited {seconds:.2f} s after the signal; lifespan.shutdown {begun}")
    return f"lifespan.shutdown was complete before the exit, {seconds:.2f} s after the signal"

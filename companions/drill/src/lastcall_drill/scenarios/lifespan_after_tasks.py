"""The order at the end."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="lifespan-after-tasks",
    title="lifespan.shutdown begins when the requests' tasks have ended",
    group="Lifespan",
    clause="ASGI lifespan, shutdown: sent when the server has closed all active connections.",
    basis=Basis.STANDARD,
    reason="The clean-up of a request that finds its connection pool closed loses what it was to save.",
    rule="A request that is ended at a grace of 1 s needs 0.3 s for its finally. lifespan.shutdown begins after that, "
    "and it does begin.",
    tolerance="none for the order; 3 s for the exit",
    sources=("Kludex/uvicorn#451", "PrefectHQ/fastmcp#3480"),
)
def lifespan_after_tasks(harness: Harness) -> str:
    """A long request, SIGTERM, wait for both."""
    harness.serve(grace=1)
    harness.open("/slow?s=60&cleanup=0.3")
    harness.must_see("request", "/slow")
    harness.signal()
    harness.exited(1.0 + 3.0)
    ends, shutdowns = harness.events("task-end", "/slow"), harness.events("lifespan-shutdown")
    if not shutdowns:
        running = "still running" if harness.server.exit_code is None else "ended"
        raise Failed(f"lifespan.shutdown was not run; {running} 4 s after the signal{harness.no_grace}")
    begun = harness.since_signal(shutdowns[0].at)
    if not ends:
        raise Failed(f"lifespan.shutdown began {begun:.2f} s after the signal; the request's task never ended")
    if ends[0].at > shutdowns[0].at:
        gap = ends[0].at - shutdowns[0].at
        raise Failed(f"lifespan.shutdown began {begun:.2f} s after the signal, {gap:.2f} s before the task ended")
    ended = harness.since_signal(ends[0].at)
    return f"the task ended {ended:.2f} s after the signal, lifespan.shutdown began at {begun:.2f} s"

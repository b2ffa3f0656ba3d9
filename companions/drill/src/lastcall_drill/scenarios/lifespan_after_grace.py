"""Time for the shutdown when the grace is used up."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="lifespan-after-grace",
    title="lifespan.shutdown is run to its end although the grace was used up",
    group="Lifespan",
    clause="ASGI lifespan, shutdown.complete: a server waits for it before it ends.",
    basis=Basis.STANDARD,
    reason="One stream that does not end in time must not cost the clean-up of the whole application.",
    rule="An endless stream uses up a grace of 2 s; a lifespan.shutdown of 1 s is complete after it.",
    tolerance="2 s for the exit",
    sources=("Kludex/uvicorn#280",),
)
def lifespan_after_grace(harness: Harness) -> str:
    """Open the stream, SIGTERM, wait for the shutdown."""
    harness.serve(grace=2, shutdown="slow:1")
    harness.stream("/inf")
    harness.signal()
    seconds = harness.must_exit(2.0 + 1.0 + 2.0, "with a grace of 2 s and a shutdown of 1 s")
    if not harness.events("lifespan-end"):
        begun = "began but did not end" if harness.events("lifespan-shutdown") else "was not run"
        raise Failed(f"exited {seconds:.2f} s after the signal; lifespan.shutdown {begun}")
    return f"lifespan.shutdown was complete; exited {seconds:.2f} s after the signal"

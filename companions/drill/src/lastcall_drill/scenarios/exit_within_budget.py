"""All phases together."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="exit-within-budget",
    title="All phases of a stop together stay within what was asked for",
    group="Process and sockets",
    clause="The server's own grace, and ASGI lifespan, shutdown.complete: the sum is what a kill timer is made from.",
    basis=Basis.SUPERVISOR,
    reason="Phases that each take the whole grace add up to more than the supervisor's kill timer.",
    rule="An endless stream, a request of a minute with 0.3 s of clean-up, work after a response, an idle connection, "
    "and a shutdown of 1 s: exits within the grace of 2 s, 0.3 s and 1 s.",
    tolerance="2 s",
)
def exit_within_budget(harness: Harness) -> str:
    """All at once, SIGTERM."""
    harness.serve(grace=2, shutdown="slow:1")
    harness.stream("/inf", "stream")
    harness.open("/slow?s=60&cleanup=0.3", "slow")
    harness.open("/bg?s=60", "work")
    harness.connect("idle").get("/ok")
    for path in ("/slow", "/bg"):
        harness.must_see("request", path)
    harness.signal()
    seconds = harness.must_exit(3.3 + 2.0, f"with 3.3 s for the whole stop{harness.no_grace}")
    if not harness.events("lifespan-end"):
        raise Failed(f"exited {seconds:.2f} s after the signal, without a complete lifespan.shutdown")
    return f"exited {seconds:.2f} s after the signal, with 3.3 s for the whole stop"

"""All phases together."""

from lastcall_drill.rig import Rig
from lastcall_drill.scenario import Failed, scenario


@scenario(
    "lifespan",
    id="exit-within-budget",
    title="All phases of a stop together stay within what was asked for",
    group="Process and sockets",
    clause="The server's own grace, and ASGI lifespan, shutdown.complete: the sum is what a kill timer is made from.",
    reason="Phases that each take the whole grace add up to more than the supervisor's kill timer.",
    rule="An endless stream, a request of a minute with 0.3 s of clean-up, work after a response, an idle connection, "
    "and a shutdown of 1 s: exits within the grace of 2 s, 0.3 s and 1 s.",
    tolerance="2 s",
)
def exit_within_budget(rig: Rig) -> str:
    """All at once, SIGTERM."""
    rig.serve(grace=2, shutdown="slow:1")
    rig.stream("/inf", "stream")
    rig.open("/slow?s=60&cleanup=0.3", "slow")
    rig.open("/bg?s=60", "work")
    rig.connect("idle").get("/ok")
    for path in ("/slow", "/bg"):
        rig.must_see("request", path)
    rig.signal()
    seconds = rig.must_exit(3.3 + 2.0, f"with 3.3 s for the whole stop{rig.no_grace}")
    if not rig.events("lifespan-end"):
        raise Failed(f"exited {seconds:.2f} s after the signal, without a complete lifespan.shutdown")
    return f"exited {seconds:.2f} s after the signal, with 3.3 s for the whole stop"

"""Background work with time enough."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="work-within-grace",
    title="Work after the response is finished within the grace",
    group="Work after the response",
    clause="ASGI: the application's call for a request has not returned; the server's own grace is for such work.",
    basis=Basis.VIEW,
    reason="Background tasks send the mail and write the ledger. The client was told that it is done.",
    rule="Work that needs 2 s more after its response is finished, within a grace of 5 s.",
    tolerance="none",
    sources=("fastapi/fastapi#3115", "Kludex/uvicorn#2119"),
)
def work_within_grace(harness: Harness) -> str:
    """A request that works on after its response, SIGTERM."""
    harness.serve()
    client, response = harness.open("/bg?s=2")
    client.wait(response, harness.long(3.0))
    harness.must_see("note", "/bg", "works")
    harness.signal()
    done = harness.wait_event("note", "/bg", "work done", within=4.0)
    if done is None:
        ends = harness.events("task-end", "/bg")
        seen = f"{ends[0].detail} {harness.since_signal(ends[0].at):.2f} s after the signal" if ends else "never ended"
        raise Failed(f"the work was not finished: its task {seen}")
    return f"finished {harness.since_signal(done.at):.2f} s after the signal"

"""Background work without time enough."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="work-past-grace",
    title="Work past the grace is cancelled, once, and cleans up",
    group="Work after the response",
    clause="Python: a task is ended by CancelledError, so that its finally blocks run.",
    basis=Basis.VIEW,
    reason="A job that is killed without a word leaves locks behind; one that is cancelled gives them back.",
    rule="Work of a minute is cancelled once at a grace of 2 s, its finally runs, and the process exits.",
    tolerance="1.5 s",
    sources=("fastapi/fastapi#3115", "fractal-analytics-platform/fractal-server#1499"),
)
def work_past_grace(harness: Harness) -> str:
    """A request that works on after its response, SIGTERM."""
    harness.serve(grace=2)
    client, response = harness.open("/bg?s=60")
    client.wait(response, harness.long(3.0))
    harness.must_see("note", "/bg", "works")
    harness.signal()
    seconds = harness.must_exit_after_grace()
    cancels = harness.events("cancel", "/bg")
    if not harness.events("note", "/bg", "finally"):
        raise Failed(f"exited {seconds:.2f} s after the signal; the work's finally block did not run")
    if len(cancels) > 1:
        raise Failed(f"cancelled {len(cancels)} times")
    return f"cancelled, with its finally block run; exited {seconds:.2f} s after the signal"

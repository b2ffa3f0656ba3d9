"""A stream that listens for its client's leaving."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="stream-heeds-disconnect",
    title="An endless stream that would end with its client does not keep the process alive",
    group="Streams",
    clause="The server's own grace: after it, what still runs is ended.",
    basis=Basis.SUPERVISOR,
    reason="This is how event streams of frameworks are written. They end when they are told that the client has left.",
    rule="Exits when the grace of 2 s is over, or before.",
    tolerance="1.5 s",
    sources=("Kludex/uvicorn#2829", "Kludex/uvicorn#2913"),
)
def stream_heeds_disconnect(harness: Harness) -> str:
    """Open the stream, SIGTERM, wait."""
    harness.serve(grace=2)
    harness.stream("/infr")
    harness.signal()
    seconds = harness.must_exit_after_grace()
    ends = [one.detail for one in harness.events("task-end", "/infr")]
    how = {"returned": "ended by itself", "cancelled": "was cancelled"}.get(ends[0] if ends else "", "did not end")
    return f"exited {seconds:.2f} s after the signal; the stream {how}"

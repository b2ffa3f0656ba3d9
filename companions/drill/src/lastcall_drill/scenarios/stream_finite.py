"""A stream that would end in time."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

CHUNKS = 10


@scenario(
    id="stream-finite",
    title="A stream that ends within the grace is complete",
    group="Streams",
    clause="The server's own grace: what is under way may finish in it. RFC 9112 8: an incomplete message is an error.",
    basis=Basis.VIEW,
    reason="Answers of language models, exports and downloads take seconds or minutes. Cut, the work is lost.",
    rule="Every chunk, and the end of the body, arrive: 2 s of stream within a grace of 6 s.",
    tolerance="none",
    sources=("sysid/sse-starlette#157", "a2aproject/a2a-python#1221"),
)
def stream_finite(harness: Harness) -> str:
    """Open the stream, SIGTERM while it runs, read it to its end."""
    harness.serve(grace=6)
    client, response = harness.stream(f"/fin?n={CHUNKS}&every=0.2")
    harness.signal()
    complete = client.wait(response, harness.long(5.0))
    chunks = response.body.count(b"data:") - response.body.count(b"data: end")
    when = harness.since_signal(response.ended)
    if not complete:
        why = response.error or "no end came"
        raise Failed(f"{chunks} of {CHUNKS} chunks arrived; {why}, {when:.2f} s after the signal")
    return f"all {CHUNKS} chunks and the end arrived, the last {when:.2f} s after the signal"

"""Honest truncation."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="stream-cut-visible",
    title="A response that is cut is visibly cut on the wire",
    group="Streams",
    clause="RFC 9112 8: a message whose last chunk is missing is incomplete. So the last chunk must not be sent.",
    basis=Basis.STANDARD,
    reason="A client that is shown a proper end believes that it has everything, and stores half of a file.",
    rule="An endless stream that is ended at a grace of 1 s has no last chunk.",
    tolerance="none",
)
def stream_cut_visible(harness: Harness) -> str:
    """Open the stream, SIGTERM, see how it ends."""
    harness.serve(grace=1)
    client, response = harness.stream("/inf")
    harness.signal()
    end = client.wait_end(harness.long(harness.grace + 1.5))
    if response.complete:
        raise Failed(f"the stream got a proper end {harness.since_signal(response.ended):.2f} s after the signal")
    if end is None:
        raise Failed(f"the stream still ran 1.5 s after the grace of {harness.grace:g} s{harness.no_grace}")
    return f"the stream was cut without a last chunk, by a {end.name}"

"""A stream that is silent."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="stream-mute",
    title="A stream that says nothing does not keep the process alive",
    group="Streams",
    clause="The server's own grace: after it, what still runs is ended.",
    basis=Basis.SUPERVISOR,
    reason="Notification streams are silent for hours. Nothing that they send will ever tell that nobody listens.",
    rule="A response that has begun and waits for http.disconnect: exits when the grace of 2 s is over.",
    tolerance="1.5 s",
    sources=("modelcontextprotocol/python-sdk#514",),
)
def stream_mute(harness: Harness) -> str:
    """Open the stream, SIGTERM, wait."""
    harness.serve(grace=2)
    harness.stream("/mute")
    harness.signal()
    return f"exited {harness.must_exit_after_grace():.2f} s after the signal"

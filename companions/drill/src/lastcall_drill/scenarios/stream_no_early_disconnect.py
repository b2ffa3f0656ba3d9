"""What a signal is not."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="stream-no-early-disconnect",
    title="The signal is not told to applications as a disconnect",
    group="Streams",
    clause="ASGI HTTP, http.disconnect: sent when the client disconnects. It has not.",
    basis=Basis.STANDARD,
    reason="Applications stop their work at http.disconnect. Those that use the grace to finish what they do for a "
    "client who is still there would be cut short.",
    rule="No http.disconnect, and no cancel, in the first half of a grace of 4 s, while the client is connected.",
    tolerance="none",
    sources=("Kludex/uvicorn#2829", "Kludex/uvicorn#2913"),
)
def stream_no_early_disconnect(harness: Harness) -> str:
    """Open the stream, SIGTERM, and look what the application gets to see."""
    harness.serve(grace=4)
    harness.stream("/infr")
    harness.signal()
    harness.until(2.0)
    for what, words in (("disconnect", "http.disconnect came"), ("cancel", "the task was cancelled")):
        for event in harness.events(what, "/infr"):
            raise Failed(f"{words} {harness.since_signal(event.at):.2f} s after the signal, with the client connected")
    return "nothing of the kind in 2 s"

"""The order at the end of the grace."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="stream-disconnect-first",
    title="At the end of the grace a stream is disconnected before it is cancelled",
    group="Streams",
    clause="ASGI HTTP, http.disconnect: an application that waits for it is told that the connection ends.",
    basis=Basis.STANDARD,
    reason="Code that handles a client's leaving is written and tested. Code that handles being cancelled anywhere is "
    "rare.",
    rule="An application that waits for http.disconnect gets it before its task is cancelled.",
    tolerance="grace of 2 s, and 1.5 s",
    sources=("django/asgiref#588", "Kludex/uvicorn#2913"),
)
def stream_disconnect_first(harness: Harness) -> str:
    """Open the stream, SIGTERM, wait for its end."""
    harness.serve(grace=2)
    harness.stream("/infr")
    harness.signal()
    harness.exited(harness.grace + 1.5)
    disconnects, cancels = harness.events("disconnect", "/infr"), harness.events("cancel", "/infr")
    if not disconnects:
        seen = f"cancelled {harness.since_signal(cancels[0].at):.2f} s after the signal" if cancels else "told nothing"
        raise Failed(f"no http.disconnect; the application was {seen}{harness.no_grace}")
    at = harness.since_signal(disconnects[0].at)
    if cancels and cancels[0].at < disconnects[0].at:
        raise Failed(
            f"cancelled {harness.since_signal(cancels[0].at):.2f} s after the signal, http.disconnect at {at:.2f} s"
        )
    return f"http.disconnect {at:.2f} s after the signal, {'then cancelled' if cancels else 'not cancelled'}"

"""An endless stream that looks at nothing."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="stream-endless",
    title="An endless stream does not keep the process alive",
    group="Streams",
    clause="The server's own grace: after it, what still runs is ended.",
    basis=Basis.SUPERVISOR,
    reason="One open event stream is enough to keep a server from ever exiting. Deployments then end with SIGKILL, "
    "and nothing is cleaned up.",
    rule="Exits when the grace of 2 s is over.",
    tolerance="1.5 s",
    sources=("Kludex/uvicorn#451", "Kludex/uvicorn#2829"),
)
def stream_endless(harness: Harness) -> str:
    """Open the stream, SIGTERM, wait."""
    harness.serve(grace=2)
    harness.stream("/inf")
    harness.signal()
    seconds = harness.must_exit_after_grace()
    return f"exited {seconds:.2f} s after the signal"

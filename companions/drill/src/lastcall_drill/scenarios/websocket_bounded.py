"""An open WebSocket and the exit."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "websocket",
    id="websocket-bounded",
    title="An open WebSocket does not keep the process alive",
    group="WebSocket",
    clause="The server's own grace: after it, what still runs is ended.",
    basis=Basis.SUPERVISOR,
    reason="WebSockets are open for days.",
    rule="A WebSocket whose client answers nothing, not even a Close frame: exits when the grace of 2 s is over.",
    tolerance="1.5 s",
    sources=("polarsource/polar#3100",),
)
def websocket_bounded(harness: Harness) -> str:
    """Open a WebSocket, SIGTERM, say nothing."""
    harness.serve(grace=2)
    harness.websocket(mute=True)
    harness.signal()
    return f"exited {harness.must_exit_after_grace():.2f} s after the signal"

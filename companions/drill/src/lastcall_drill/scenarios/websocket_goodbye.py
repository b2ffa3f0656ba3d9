"""The last words of a WebSocket."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "websocket",
    "notice",
    id="websocket-goodbye",
    title="The application can say goodbye before the Close frame",
    group="WebSocket",
    clause="The server's own notice for applications (an extension in the scope).",
    basis=Basis.VIEW,
    reason="A last message says where to connect next and from which event on.",
    rule="A message that is sent at the notice arrives before the Close frame.",
    tolerance="grace of 4 s",
    sources=("emmett-framework/granian#796",),
)
def websocket_goodbye(harness: Harness) -> str:
    """Open a WebSocket whose application says farewell, SIGTERM."""
    harness.serve(grace=4)
    client = harness.websocket("/ws?bye=1")
    harness.signal()
    code = client.wait_close(harness.long(5.0))
    texts = [text for _, text in client.messages]
    if "bye" not in texts:
        raise Failed(f"no last message; {'no Close frame' if code is None else f'a Close frame with {code}'}")
    return f"the last message, then {'no Close frame' if code is None else f'a Close frame with {code}'}"

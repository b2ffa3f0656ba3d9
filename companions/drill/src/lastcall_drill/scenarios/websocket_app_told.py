"""What the application gets to see of a WebSocket's end."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

ROUNDS = 5


@scenario(
    "websocket",
    id="websocket-app-told",
    title="The application gets websocket.disconnect",
    group="WebSocket",
    clause="ASGI WebSocket, disconnect: sent when the connection is closed, with the code of the Close frame.",
    basis=Basis.STANDARD,
    reason="Presence, subscriptions and locks are given back there.",
    rule="websocket.disconnect within the grace of 2 s, with the code of the Close frame if one was sent; in 5 stops.",
    tolerance="1.5 s",
    sources=("Kludex/uvicorn#2865",),
)
def websocket_app_told(harness: Harness) -> str:
    """Open a WebSocket, SIGTERM; five times."""
    codes = []
    for number in range(1, ROUNDS + 1):
        harness.serve(grace=2)
        client = harness.websocket()
        harness.signal()
        event = harness.wait_event("disconnect", "/ws", within=3.5)
        if event is None:
            how = "cancelled" if harness.events("cancel", "/ws") else "not ended"
            raise Failed(f"no websocket.disconnect in stop {number} of {ROUNDS}; the task was {how}")
        code = client.wait_close(harness.long(0.5))
        if code is not None and event.detail != str(code):
            raise Failed(f"websocket.disconnect with {event.detail}, while the Close frame had {code}")
        codes.append(event.detail)
    return f"websocket.disconnect with {', '.join(sorted(set(codes)))}, in {ROUNDS} stops"

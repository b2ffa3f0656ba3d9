"""How a WebSocket ends."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

GOING_AWAY, RESTART = 1001, 1012


@scenario(
    "websocket",
    id="websocket-close-code",
    title="A WebSocket is closed with a Close frame that says why",
    group="WebSocket",
    clause='RFC 6455 7.4.1: 1001 is "going away", as a server that goes down; the IANA registry: 1012 is a restart.',
    basis=Basis.STANDARD,
    reason="Without a Close frame a client sees 1006, an accident, and cannot tell a deployment from a broken network.",
    rule="A Close frame with 1001 or 1012 within the grace of 2 s.",
    tolerance="1.5 s",
    sources=("Kludex/uvicorn#1344", "Kludex/uvicorn#1816"),
)
def websocket_close_code(harness: Harness) -> str:
    """Open a WebSocket, SIGTERM."""
    harness.serve(grace=2)
    client = harness.websocket()
    harness.signal()
    code = client.wait_close(harness.long(3.5))
    if code is None:
        how = f"the connection ended with a {client.end.name}" if client.end else "the connection stayed open"
        raise Failed(f"no Close frame within 3.5 s of the signal; {how}")
    at = harness.since_signal(client.closed_at)
    if code not in (GOING_AWAY, RESTART):
        raise Failed(f"a Close frame with {code}, {at:.2f} s after the signal")
    return f"a Close frame with {code}, {at:.2f} s after the signal"

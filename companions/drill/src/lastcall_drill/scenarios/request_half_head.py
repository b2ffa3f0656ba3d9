"""A head that is half there."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="request-half-head",
    title="A request whose head is half there is answered",
    group="Requests",
    clause="RFC 9112 9.5: an open connection is closed gracefully, where that is possible.",
    basis=Basis.VIEW,
    reason="The client, or the proxy before it, is sending its request right now. To close then is a 502 for somebody.",
    rule="The rest of the head comes 0.2 s after the signal. There is an answer, of any status.",
    tolerance="none",
    sources=("Kludex/uvicorn#3124",),
)
def request_half_head(harness: Harness) -> str:
    """Half a head, SIGTERM, the other half."""
    harness.serve()
    client = harness.connect()
    response = client.expect()
    client.send(b"GET /ok HTTP/1.1\r\nHost: dr")
    harness.sleep(0.2)
    harness.signal()
    harness.until(0.2)
    client.send(b"ill\r\n\r\n")
    if not client.wait(response, harness.long(3.0)):
        raise Failed(f"{response.outcome}, {harness.since_signal(response.ended):.2f} s after the signal")
    return f"answered with {response.status}, {harness.since_signal(response.ended):.2f} s after the signal"

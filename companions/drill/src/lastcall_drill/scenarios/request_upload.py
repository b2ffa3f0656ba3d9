"""A body that is still on its way."""

from lastcall_drill.client import head
from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

HALF = 512 * 1024


@scenario(
    id="request-upload",
    title="An upload that has begun is finished and answered",
    group="Requests",
    clause="The server's own grace: what is under way may finish in it. RFC 9110 3.4: a request is its body, too.",
    basis=Basis.VIEW,
    reason="An upload that is reset has to begin again, and the client is not told why.",
    rule="The second half of a body, sent 1 s after the signal, is read and answered with 200, in a grace of 5 s.",
    tolerance="none",
)
def request_upload(harness: Harness) -> str:
    """Half a body, SIGTERM, 1 s, the other half."""
    harness.serve()
    client = harness.connect()
    response = client.expect("POST")
    client.send(head("/upload", method="POST", headers=[f"Content-Length: {2 * HALF}"]) + b"x" * HALF)
    harness.wait_event("request", "/upload", within=0.5)  # some servers call the application with the whole body only
    harness.signal()
    harness.until(1.0)
    client.send(b"x" * HALF)
    if not client.wait(response, harness.long(3.5)) or response.status != 200:
        raise Failed(f"{response.outcome}, {harness.since_signal(response.ended):.2f} s after the signal")
    if response.body != str(2 * HALF).encode():
        raise Failed(f"the application got {response.body.decode()} bytes of {2 * HALF}")
    return f"all {2 * HALF} bytes were read, and answered {harness.since_signal(response.ended):.2f} s after the signal"

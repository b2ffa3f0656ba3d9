"""Requests that were sent without waiting for answers."""

from lastcall_drill.client import head
from lastcall_drill.connection import End
from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="request-pipelined",
    title="Pipelined requests: answers are whole, and the end is a FIN",
    group="Requests",
    clause="RFC 9112 9.3.2: answers come in the order of requests. 9.6: a server closes in stages, so that no reset "
    "destroys an answer.",
    basis=Basis.STANDARD,
    reason="A reset makes the kernel throw away answers that the client has not read yet.",
    rule="Of three requests that were sent before the signal the first is answered completely, what is answered after "
    "it is complete too, and the connection ends with a FIN.",
    tolerance="none",
)
def request_pipelined(harness: Harness) -> str:
    """Three requests at once, SIGTERM while the first is at work."""
    harness.serve()
    client = harness.connect()
    responses = [client.expect() for _ in range(3)]
    client.send(head("/slow") + head("/ok") + head("/ok"))
    harness.must_see("request", "/slow")
    harness.sleep(0.3)
    harness.signal()
    first = responses[0]
    if not client.wait(first, harness.long(4.0)):
        raise Failed(f"the first: {first.outcome}, {harness.since_signal(first.ended):.2f} s after the signal")
    end = client.wait_end(harness.long(5.0))
    answered = sum(one.complete for one in responses)
    begun = sum(one.status != 0 for one in responses)
    if end is End.RST:
        raise Failed(f"{answered} of 3 were answered, then the connection was reset")
    if begun != answered:
        raise Failed(f"{answered} of 3 were answered completely; another answer was cut")
    return f"{answered} of 3 were answered, then the connection {'ended with a FIN' if end else 'stayed open'}"

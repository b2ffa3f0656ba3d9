"""What the last answer says of its connection."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="request-says-close",
    title="An answer that begins in the drain says Connection: close",
    group="Requests",
    clause='RFC 9112 9.6: a server that is going to close the connection should send "close" in its final response.',
    basis=Basis.STANDARD,
    reason="A client or proxy that does not know it will use the connection again, and its next request is lost.",
    rule="The head of an answer that begins 2.2 s after the signal has the close option.",
    tolerance="the 2.2 s, so that a server may look for signals once a second",
    sources=("benoitc/gunicorn#3737",),
)
def request_says_close(harness: Harness) -> str:
    """A request in flight on a connection that asks for nothing; its head comes after the signal."""
    harness.serve()
    client, response = harness.open("/slow?s=2.5")
    harness.must_see("request", "/slow")
    harness.sleep(0.3)
    harness.signal()
    if not client.wait(response, harness.long(4.5)):
        raise Failed(f"{response.outcome}, {harness.since_signal(response.ended):.2f} s after the signal")
    if not response.says_close:
        end = client.wait_end(harness.long(2.0))
        then = "the connection stayed open for 2 s" if end is None else f"the connection was then closed ({end.name})"
        raise Failed(f"answered with {response.status} and no Connection: close; {then}")
    return f"answered with {response.status} and Connection: close"

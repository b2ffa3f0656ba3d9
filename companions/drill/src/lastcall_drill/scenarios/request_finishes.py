"""A request in flight."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="request-finishes",
    title="A request in flight is answered",
    group="Requests",
    clause="The server's own grace: what is under way may finish in it.",
    basis=Basis.VIEW,
    reason="A stop that loses the requests at work is an outage for those who sent them.",
    rule="A request that needs 1.5 s more is answered with 200, within a grace of 5 s.",
    tolerance="none",
    sources=("django/daphne#177",),
)
def request_finishes(harness: Harness) -> str:
    """SIGTERM while the application works."""
    harness.serve()
    client, response = harness.open("/slow?s=2")
    harness.must_see("request", "/slow")
    harness.sleep(0.5)
    harness.signal()
    if not client.wait(response, harness.long(4.0)) or response.status != 200:
        raise Failed(f"{response.outcome}, {harness.since_signal(response.ended):.2f} s after the signal")
    return f"answered with 200, {harness.since_signal(response.ended):.2f} s after the signal"

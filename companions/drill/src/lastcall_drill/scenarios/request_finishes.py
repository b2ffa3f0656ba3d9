"""A request in flight."""

from lastcall_drill.rig import Rig
from lastcall_drill.scenario import Failed, scenario


@scenario(
    id="request-finishes",
    title="A request in flight is answered",
    group="Requests",
    clause="The server's own grace: what is under way may finish in it.",
    reason="A stop that loses the requests at work is an outage for those who sent them.",
    rule="A request that needs 1.5 s more is answered with 200, within a grace of 5 s.",
    tolerance="none",
    sources=("django/daphne#177",),
)
def request_finishes(rig: Rig) -> str:
    """SIGTERM while the application works."""
    rig.serve()
    client, response = rig.open("/slow?s=2")
    rig.must_see("request", "/slow")
    rig.sleep(0.5)
    rig.signal()
    if not client.wait(response, rig.long(4.0)) or response.status != 200:
        raise Failed(f"{response.outcome}, {rig.since_signal(response.ended):.2f} s after the signal")
    return f"answered with 200, {rig.since_signal(response.ended):.2f} s after the signal"

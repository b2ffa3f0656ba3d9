"""New callers while the application shuts down."""

from contextlib import suppress

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="connection-refused",
    title="New callers are refused at once while the application shuts down",
    group="Connections",
    clause="ASGI lifespan, shutdown: sent when the server has stopped accepting connections.",
    basis=Basis.STANDARD,
    reason="A caller that is refused goes elsewhere. One that is let into a queue which nobody reads hangs, and is "
    "reset then.",
    rule="While lifespan.shutdown takes 3 s, a client that connects 1.5 s after the signal is refused.",
    tolerance="none",
    sources=("pgjones/hypercorn#128", "Kludex/uvicorn#2010"),
)
def connection_refused(harness: Harness) -> str:
    """A slow lifespan.shutdown, and a client that comes meanwhile."""
    harness.serve(shutdown="slow:3")
    harness.signal()
    harness.until(1.5)
    with suppress(ConnectionRefusedError):
        client = harness.connect("late")
        response = client.request("/ok")
        if client.wait(response, harness.long(1.0)):
            raise Failed(f"the caller was answered with {response.status} while the application shut down")
        raise Failed("the caller was let in, and had no answer within 1 s")
    return "refused"

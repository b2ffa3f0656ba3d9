"""New callers while workers shut down."""

from contextlib import suppress

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "workers",
    "lifespan",
    id="workers-refuse",
    title="New callers are refused at once while workers shut down",
    group="Several workers",
    clause="ASGI lifespan, shutdown: sent when the server has stopped accepting connections.",
    basis=Basis.STANDARD,
    reason="A parent that keeps the listener open lets callers into a queue that nobody reads. They hang.",
    rule="While lifespan.shutdown takes 4 s in 2 workers, a client that connects 2 s after the signal is refused.",
    tolerance="none",
    sources=("pgjones/hypercorn#128", "Kludex/uvicorn#2010"),
)
def workers_refuse(harness: Harness) -> str:
    """A slow lifespan.shutdown, and a client that comes meanwhile."""
    harness.serve(workers=2, shutdown="slow:4")
    harness.signal()
    harness.until(2.0)
    with suppress(ConnectionRefusedError):
        client = harness.connect("late")
        response = client.request("/ok")
        if client.wait(response, harness.long(1.0)):
            raise Failed(f"the caller was answered with {response.status} while the application shut down")
        raise Failed("the caller was let in, and had no answer within 1 s")
    return "refused"

"""Clients whom the kernel has let in while the event loop was busy."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

CLIENTS = 50
ROUNDS = 10
BLOCK = 0.5  # seconds


@scenario(
    id="request-backlog",
    title="Clients in the backlog are answered",
    group="Requests",
    clause="TCP: who is in the queue of a listener is connected. Closing the listener resets them.",
    basis=Basis.VIEW,
    reason="To the client the connection is open and the request sent. A reset is a failure that it cannot explain.",
    rule="While the application blocks the event loop for 0.5 s, 50 clients connect and send a request; then SIGTERM. "
    "All are answered, ten times.",
    tolerance="none; grace of 5 s",
    sources=("Kludex/uvicorn#3124", "benoitc/gunicorn#3323"),
)
def request_backlog(harness: Harness) -> str:
    """Block, connect, SIGTERM; ten times."""
    for _ in range(ROUNDS):
        harness.serve()
        harness.open(f"/block?s={BLOCK:g}", "blocker")
        harness.must_see("note", "/block")
        opened = [harness.open("/ok", f"client-{number}") for number in range(CLIENTS)]
        harness.signal()
        for client, response in opened:
            client.wait(response, harness.long(5.0 - harness.since_signal()))
        answered = sum(response.complete for _, response in opened)
        if answered < CLIENTS:
            first = next(response for _, response in opened if not response.complete)
            raise Failed(f"{answered} of {CLIENTS} were answered; of another {first.outcome}")
    return f"all {CLIENTS} were answered, {ROUNDS} times"

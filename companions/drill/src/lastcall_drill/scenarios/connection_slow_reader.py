"""A client that does not read."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="connection-slow-reader",
    title="A client that does not read cannot hold the process",
    group="Connections",
    clause="The server's own grace: after it, what still runs is ended.",
    basis=Basis.SUPERVISOR,
    reason="A download to a phone without reception would hold a deployment.",
    rule="A response of 32 MiB of which nothing is read: exits when the grace of 2 s is over.",
    tolerance="1.5 s",
    sources=("Kludex/uvicorn#2754",),
)
def connection_slow_reader(harness: Harness) -> str:
    """Ask for much, read nothing, SIGTERM."""
    harness.serve(grace=2)
    client = harness.connect("slow", paused=True, receive_buffer=4096)
    client.request("/big?kib=32768")
    harness.must_see("request", "/big")
    harness.sleep(0.3)
    harness.signal()
    return f"exited {harness.must_exit_after_grace():.2f} s after the signal"

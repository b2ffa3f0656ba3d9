"""A client that does not read."""

from lastcall_drill.rig import Rig
from lastcall_drill.scenario import scenario


@scenario(
    id="connection-slow-reader",
    title="A client that does not read cannot hold the process",
    group="Connections",
    clause="The server's own grace: after it, what still runs is ended.",
    reason="A download to a phone without reception would hold a deployment.",
    rule="A response of 32 MiB of which nothing is read: exits when the grace of 2 s is over.",
    tolerance="1.5 s",
    sources=("Kludex/uvicorn#2754",),
)
def connection_slow_reader(rig: Rig) -> str:
    """Ask for much, read nothing, SIGTERM."""
    rig.serve(grace=2)
    client = rig.connect("slow", paused=True, receive_buffer=4096)
    client.request("/big?kib=32768")
    rig.must_see("request", "/big")
    rig.sleep(0.3)
    rig.signal()
    return f"exited {rig.must_exit_after_grace():.2f} s after the signal"

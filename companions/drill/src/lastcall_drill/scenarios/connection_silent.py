"""A connection without a byte."""

from lastcall_drill.rig import Rig
from lastcall_drill.scenario import scenario


@scenario(
    id="connection-silent",
    title="A fresh connection that says nothing does not delay the exit",
    group="Connections",
    clause="The server's own grace is for work, and there is none.",
    reason="Balancers and browsers open connections ahead of need. One of them must not hold a stop.",
    rule="Exits within 2 s of a grace of 5 s.",
    tolerance="0.5 s",
    sources=("hyperium/hyper#2730", "benoitc/gunicorn#3735"),
)
def connection_silent(rig: Rig) -> str:
    """Connect, send nothing, SIGTERM."""
    rig.serve()
    rig.connect()
    rig.sleep(0.2)
    rig.signal()
    return f"exited {rig.must_exit(2.5, 'with one silent connection only'):.2f} s after the signal"

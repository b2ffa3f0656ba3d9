"""A connection without a byte."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="connection-silent",
    title="A fresh connection that says nothing does not delay the exit",
    group="Connections",
    clause="The server's own grace is for work, and there is none.",
    basis=Basis.VIEW,
    reason="Balancers and browsers open connections ahead of need. One of them must not hold a stop.",
    rule="Exits within 2 s of a grace of 5 s.",
    tolerance="0.5 s",
    sources=("hyperium/hyper#2730", "benoitc/gunicorn#3735"),
)
def connection_silent(harness: Harness) -> str:
    """Connect, send nothing, SIGTERM."""
    harness.serve()
    harness.connect()
    harness.sleep(0.2)
    harness.signal()
    return f"exited {harness.must_exit(2.5, 'with one silent connection only'):.2f} s after the signal"

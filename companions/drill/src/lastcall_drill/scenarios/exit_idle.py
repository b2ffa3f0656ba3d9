"""Nothing to do."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="exit-idle",
    title="An idle server stops at once",
    group="Process and sockets",
    clause="The server's own grace is for work, and there is none.",
    basis=Basis.VIEW,
    reason="Restarts in development and rolling deployments add up all stops.",
    rule="SIGTERM to a server without connections: exits within 1 s.",
    tolerance="1 s",
    sources=("benoitc/gunicorn#3661",),
)
def exit_idle(harness: Harness) -> str:
    """SIGTERM."""
    harness.serve()
    harness.signal()
    return f"exited {harness.must_exit(2.0, 'with nothing to do'):.2f} s after the signal; {harness.exit_words}"

"""Ctrl-C, once."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="signal-sigint",
    title="SIGINT does not skip lifespan.shutdown",
    group="Signals",
    clause="ASGI lifespan, shutdown.complete: a server waits for it before it ends. SIGINT is a terminal's Ctrl-C.",
    basis=Basis.VIEW,
    reason="Ctrl-C in development, and process managers that send SIGINT, should not skip what SIGTERM runs.",
    rule="SIGINT to an idle server: a shutdown that takes 0.5 s ends before the process does.",
    tolerance="3 s for the exit",
    sources=("eventum-generator/eventum#143",),
)
def signal_sigint(harness: Harness) -> str:
    """SIGINT to an idle server."""
    harness.serve(shutdown="slow:0.5")
    harness.signal(signal.SIGINT)
    seconds = harness.must_exit(0.5 + 3.0)
    if not harness.events("lifespan-end"):
        begun = "began but did not end" if harness.events("lifespan-shutdown") else "was not run"
        raise Failed(f"exited {seconds:.2f} s after the signal; lifespan.shutdown {begun}")
    return f"lifespan.shutdown was complete before the exit, {seconds:.2f} s after the signal"

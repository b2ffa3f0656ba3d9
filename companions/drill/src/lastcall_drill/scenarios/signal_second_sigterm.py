"""SIGTERM, twice."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.scenarios.signal_second_sigint import twice
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="signal-second-sigterm",
    title="A second SIGTERM does not skip lifespan.shutdown, and cannot prolong the stop",
    group="Signals",
    clause="ASGI lifespan, shutdown.complete: a server waits for it before it ends.",
    basis=Basis.VIEW,
    reason="Process managers repeat SIGTERM. It may hasten the stop; the clean-up has to be done all the same.",
    rule="With an endless stream open: SIGTERM, 1 s, SIGTERM. lifespan.shutdown is complete, and the process exits "
    "when the grace of 3 s is over, or before.",
    tolerance="1.5 s",
)
def signal_second_sigterm(harness: Harness) -> str:
    """Open a stream, SIGTERM, SIGTERM."""
    return twice(harness, signal.SIGTERM)

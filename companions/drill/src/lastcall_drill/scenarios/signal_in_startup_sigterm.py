"""A start that hangs, and SIGTERM."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.scenarios.signal_in_startup_sigint import interrupted
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="signal-startup-sigterm",
    title="SIGTERM interrupts a start-up that hangs",
    group="Signals",
    clause="POSIX: SIGTERM asks a process to end. No request is at work yet, so there is nothing to wait for.",
    basis=Basis.SUPERVISOR,
    reason="A deployment that is rolled back waits for the processes of the broken release.",
    rule="lifespan.startup hangs; exits within 3 s of SIGTERM.",
    tolerance="see the rule",
    sources=("Kludex/uvicorn#2751",),
)
def signal_startup_sigterm(harness: Harness) -> str:
    """Start, wait for lifespan.startup, SIGTERM."""
    return interrupted(harness, signal.SIGTERM)

"""A start that hangs, and Ctrl-C."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="signal-startup-sigint",
    title="SIGINT interrupts a start-up that hangs",
    group="Signals",
    clause="POSIX: SIGINT asks a process to end. No request is at work yet, so there is nothing to wait for.",
    basis=Basis.SUPERVISOR,
    reason="A database that does not answer at the start leaves a process that only SIGKILL ends.",
    rule="lifespan.startup hangs; exits within 3 s of SIGINT.",
    tolerance="see the rule",
    sources=("Kludex/uvicorn#2751", "Kludex/uvicorn#3069"),
)
def signal_startup_sigint(harness: Harness) -> str:
    """Start, wait for lifespan.startup, SIGINT."""
    return interrupted(harness, signal.SIGINT)


def interrupted(harness: Harness, number: signal.Signals) -> str:
    """A signal while lifespan.startup hangs."""
    harness.serve(startup="hang", ready=False, grace=1)
    harness.must_see("lifespan-startup", within=15)
    harness.sleep(0.3)
    harness.signal(number)
    return f"exited {harness.must_exit(3.0, 'in lifespan.startup'):.2f} s after the signal"

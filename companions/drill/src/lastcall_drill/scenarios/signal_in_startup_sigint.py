"""A start that hangs, and Ctrl-C."""

import signal

from lastcall_drill.rig import Rig
from lastcall_drill.scenario import scenario


@scenario(
    "lifespan",
    id="signal-startup-sigint",
    title="SIGINT interrupts a start-up that hangs",
    group="Signals",
    clause="POSIX: SIGINT asks a process to end. No request is at work yet, so there is nothing to wait for.",
    reason="A database that does not answer at the start leaves a process that only SIGKILL ends.",
    rule="lifespan.startup hangs; exits within 3 s of SIGINT.",
    tolerance="see the rule",
    sources=("Kludex/uvicorn#2751", "Kludex/uvicorn#3069"),
)
def signal_startup_sigint(rig: Rig) -> str:
    """Start, wait for lifespan.startup, SIGINT."""
    return interrupted(rig, signal.SIGINT)


def interrupted(rig: Rig, number: signal.Signals) -> str:
    """A signal while lifespan.startup hangs."""
    rig.serve(startup="hang", ready=False, grace=1)
    rig.must_see("lifespan-startup", within=15)
    rig.sleep(0.3)
    rig.signal(number)
    return f"exited {rig.must_exit(3.0, 'in lifespan.startup'):.2f} s after the signal"

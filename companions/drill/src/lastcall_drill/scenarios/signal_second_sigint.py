"""Ctrl-C, twice."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="signal-second-sigint",
    title="A second SIGINT does not skip lifespan.shutdown",
    group="Signals",
    clause="ASGI lifespan, shutdown.complete: a server waits for it before it ends.",
    basis=Basis.VIEW,
    reason="Who presses Ctrl-C twice is tired of waiting for a stream, and does not want to corrupt a database.",
    rule="With an endless stream open: SIGINT, 1 s, SIGINT. lifespan.shutdown is complete, and the process exits when "
    "the grace of 3 s is over, or before.",
    tolerance="1.5 s",
    sources=("Kludex/uvicorn#451", "eventum-generator/eventum#143"),
)
def signal_second_sigint(harness: Harness) -> str:
    """Open a stream, SIGINT, SIGINT."""
    return twice(harness, signal.SIGINT)


def twice(harness: Harness, number: signal.Signals) -> str:
    """Two signals, a second apart, with an endless stream open."""
    harness.serve(grace=3)
    harness.stream("/inf")
    harness.signal(number)
    harness.until(1.0)
    harness.signal(number)
    seconds = harness.must_exit_after_grace()
    if not harness.events("lifespan-end"):
        begun = "began but did not end" if harness.events("lifespan-shutdown") else "was not run"
        raise Failed(f"exited {seconds:.2f} s after the first signal; lifespan.shutdown {begun}")
    return f"lifespan.shutdown was complete; exited {seconds:.2f} s after the first signal"

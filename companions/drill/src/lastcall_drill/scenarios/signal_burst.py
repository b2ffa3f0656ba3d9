"""Many signals."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="signal-burst",
    title="Five signals in a row do not hang the process",
    group="Signals",
    clause="The server's own grace: after it, what still runs is ended.",
    basis=Basis.SUPERVISOR,
    reason="Impatient people and scripts send signals until something happens.",
    rule="A silent stream is open; SIGINT and SIGTERM in turn, five in a second. Exits when the grace of 2 s is over.",
    tolerance="2 s",
)
def signal_burst(harness: Harness) -> str:
    """Open a stream, five signals."""
    harness.serve(grace=2)
    harness.stream("/mute")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        harness.signal(number)
        harness.sleep(0.2)
    return f"exited {harness.must_exit_after_grace(2.0):.2f} s after the first signal"

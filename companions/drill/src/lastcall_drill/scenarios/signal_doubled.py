"""One stop, told twice at once."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="signal-doubled",
    title="A signal to the group and one to the process are one stop",
    group="Signals",
    clause="systemd.kill, KillMode=control-group: SIGTERM goes to every process; parents and wrappers forward it, too.",
    basis=Basis.SUPERVISOR,
    reason="A server that takes the second for a demand to hurry drops its requests at each systemctl stop.",
    rule="SIGTERM to the group, and to the process 20 ms later: a stream of 1.5 s is complete.",
    tolerance="none; grace of 5 s",
    sources=("Kludex/uvicorn#1160", "eventum-generator/eventum#143"),
)
def signal_doubled(harness: Harness) -> str:
    """Open a finite stream, two signals."""
    harness.serve()
    client, response = harness.stream("/fin?n=8&every=0.2")
    harness.signal(signal.SIGTERM, group=True)
    harness.sleep(0.02)
    harness.signal(signal.SIGTERM)
    if not client.wait(response, harness.long(4.0)):
        raise Failed(f"{response.outcome}, {harness.since_signal(response.ended):.2f} s after the signal")
    return f"the stream was complete {harness.since_signal(response.ended):.2f} s after the first signal"

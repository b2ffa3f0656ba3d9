"""One stop, told twice at once."""

import signal

from lastcall_drill.rig import Rig
from lastcall_drill.scenario import Failed, scenario


@scenario(
    id="signal-doubled",
    title="A signal to the group and one to the process are one stop",
    group="Signals",
    clause="systemd.kill, KillMode=control-group: SIGTERM goes to every process; parents and wrappers forward it, too.",
    reason="A server that takes the second for a demand to hurry drops its requests at each systemctl stop.",
    rule="SIGTERM to the group, and to the process 20 ms later: a stream of 1.5 s is complete.",
    tolerance="none; grace of 5 s",
    sources=("Kludex/uvicorn#1160", "eventum-generator/eventum#143"),
)
def signal_doubled(rig: Rig) -> str:
    """Open a finite stream, two signals."""
    rig.serve()
    client, response = rig.stream("/fin?n=8&every=0.2")
    rig.signal(signal.SIGTERM, group=True)
    rig.sleep(0.02)
    rig.signal(signal.SIGTERM)
    if not client.wait(response, rig.long(4.0)):
        raise Failed(f"{response.outcome}, {rig.since_signal(response.ended):.2f} s after the signal")
    return f"the stream was complete {rig.since_signal(response.ended):.2f} s after the first signal"

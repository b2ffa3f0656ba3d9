"""A signal to every process."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.scenarios.workers_drain import drain
from lastcall_drill.verdicts import Basis


@scenario(
    "workers",
    id="workers-group-signal",
    title="SIGTERM to the whole group is one stop",
    group="Several workers",
    clause="systemd.kill, KillMode=control-group: SIGTERM goes to every process. A parent that forwards it doubles it.",
    basis=Basis.SUPERVISOR,
    reason="This is how systemd stops a service unless it is told otherwise.",
    rule="As in workers-drain, with SIGTERM to parent and workers at once: all streams are complete.",
    tolerance="none",
)
def workers_group_signal(harness: Harness) -> str:
    """Open streams, SIGTERM to the group."""
    return drain(harness, group=True)

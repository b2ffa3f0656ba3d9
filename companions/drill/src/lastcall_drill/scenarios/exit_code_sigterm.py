"""The exit code of a stop that was asked for."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

CLEAN = (0, -signal.SIGTERM)


@scenario(
    id="exit-code-sigterm",
    title="The exit after SIGTERM counts as clean",
    group="Process and sockets",
    clause="systemd.service: exit code 0, and an end by SIGTERM itself, are clean. Any other code is a failure.",
    basis=Basis.SUPERVISOR,
    reason="Supervisors restart, alert and count by the exit code.",
    rule="SIGTERM to an idle server: exit code 0, or ended by the signal SIGTERM.",
    tolerance="3 s for the exit",
    sources=("Kludex/uvicorn#1600", "immich-app/immich#17488"),
)
def exit_code_sigterm(harness: Harness) -> str:
    """SIGTERM."""
    harness.serve()
    harness.signal()
    harness.must_exit(3.0)
    if harness.server.exit_code not in CLEAN:
        raise Failed(f"{harness.exit_words} after a clean stop")
    return f"{harness.exit_words}"

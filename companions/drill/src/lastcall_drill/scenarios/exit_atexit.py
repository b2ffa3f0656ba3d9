"""What Python does at an exit."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="exit-atexit",
    title="Functions that were registered with atexit run",
    group="Process and sockets",
    clause="Python, atexit: functions run at normal termination, not when the process is killed by a signal.",
    basis=Basis.STANDARD,
    reason="Logging, telemetry and profilers write their last data there.",
    rule="SIGTERM to an idle server: a function that the application has registered with atexit runs.",
    tolerance="3 s for the exit",
)
def exit_atexit(harness: Harness) -> str:
    """SIGTERM."""
    harness.serve()
    harness.signal()
    harness.must_exit(3.0)
    if not harness.events("note", detail="atexit"):
        raise Failed(f"atexit functions did not run; {harness.exit_words}")
    return f"they ran; {harness.exit_words}"

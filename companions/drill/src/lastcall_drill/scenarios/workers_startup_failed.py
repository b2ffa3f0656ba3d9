"""A start that fails in the workers."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.scenarios.exit_code_startup import failed_start
from lastcall_drill.verdicts import Basis


@scenario(
    "workers",
    "lifespan",
    signals=False,
    id="workers-startup-failed",
    title="Workers that cannot start end the parent, with an exit code that says so",
    group="Several workers",
    clause="ASGI lifespan, startup.failed: a server should log the message, and then exit.",
    basis=Basis.SUPERVISOR,
    reason="A parent that lives on, or exits with 0, looks like a service that runs.",
    rule="The application answers with startup.failed in 2 workers: exits within 5 s, and the code is not 0.",
    tolerance="see the rule",
)
def workers_startup_failed(harness: Harness) -> str:
    """Start, and wait for the end."""
    return failed_start(harness, workers=2)

"""The exit code of a start that failed."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    signals=False,
    id="exit-code-startup",
    title="A start that the application declares failed ends with an exit code that says so",
    group="Process and sockets",
    clause="ASGI lifespan, startup.failed: a server should log the message, and then exit.",
    basis=Basis.SUPERVISOR,
    reason="With exit code 0 the supervisor believes that all is well, and does not start it again.",
    rule="The application answers with startup.failed: the process exits within 5 s, and its code is not 0.",
    tolerance="see the rule",
)
def exit_code_startup(harness: Harness) -> str:
    """Start, and wait for the end."""
    return failed_start(harness, workers=1)


def failed_start(harness: Harness, workers: int) -> str:
    """A start that fails, with so many workers."""
    if workers > 1:
        harness.serve(startup="failed", ready=False, workers=workers)
    else:
        harness.serve(startup="failed", ready=False)
    harness.must_see("lifespan-startup", within=15)
    if harness.server.wait(harness.long(5.0)) is None:
        raise Failed("still running 5 s after startup.failed")
    if harness.server.exit_code == 0:
        raise Failed("exit code 0")
    return harness.exit_words

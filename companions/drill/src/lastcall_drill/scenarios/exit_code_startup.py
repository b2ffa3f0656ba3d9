"""The exit code of a start that failed."""

from lastcall_drill.rig import Rig
from lastcall_drill.scenario import Failed, scenario


@scenario(
    "lifespan",
    id="exit-code-startup",
    title="A start that the application declares failed ends with an exit code that says so",
    group="Process and sockets",
    clause="ASGI lifespan, startup.failed: a server should log the message, and then exit.",
    reason="With exit code 0 the supervisor believes that all is well, and does not start it again.",
    rule="The application answers with startup.failed: the process exits within 5 s, and its code is not 0.",
    tolerance="see the rule",
)
def exit_code_startup(rig: Rig) -> str:
    """Start, and wait for the end."""
    return failed_start(rig, workers=1)


def failed_start(rig: Rig, workers: int) -> str:
    """A start that fails, with so many workers."""
    if workers > 1:
        rig.serve(startup="failed", ready=False, workers=workers)
    else:
        rig.serve(startup="failed", ready=False)
    rig.must_see("lifespan-startup", within=15)
    if rig.server.wait(rig.long(5.0)) is None:
        raise Failed("still running 5 s after startup.failed")
    if rig.server.exit_code == 0:
        raise Failed("exit code 0")
    return rig.exit_words

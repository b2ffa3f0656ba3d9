"""A shutdown that fails."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="lifespan-failed",
    title="What the application says of its failed shutdown is logged",
    group="Lifespan",
    clause="ASGI lifespan, shutdown.failed: a server should log the message, and then terminate.",
    basis=Basis.STANDARD,
    reason="The message is the only trace of what was not saved.",
    rule="The application answers with shutdown.failed: its message is in the output, and the process exits in 3 s.",
    tolerance="see the rule",
    sources=("ASGI lifespan specification",),
)
def lifespan_failed(harness: Harness) -> str:
    """SIGTERM to an idle server whose application fails."""
    harness.serve(shutdown="failed")
    harness.signal()
    seconds = harness.must_exit(3.0)
    if "the drill's application says so" not in harness.server.output():
        raise Failed(f"exited {seconds:.2f} s after the signal; the message is not in the output")
    return f"the message was logged; exited {seconds:.2f} s after the signal; {harness.exit_words}"

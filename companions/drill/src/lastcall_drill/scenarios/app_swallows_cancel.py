"""An application that does not want to end."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="app-swallows-cancel",
    title="An application that swallows CancelledError is bounded",
    group="Applications that misbehave",
    clause="The kill timer of whoever supervises the process: ten seconds with Docker, thirty with Kubernetes.",
    basis=Basis.SUPERVISOR,
    reason="A bare except in a library is enough to swallow a cancel.",
    rule="A handler ignores every cancel; the grace is 1 s. Exits within 6 s.",
    tolerance="see the rule",
)
def app_swallows_cancel(harness: Harness) -> str:
    """A request that ignores cancels, SIGTERM."""
    harness.serve(grace=1)
    harness.stream("/swallow")
    harness.signal()
    seconds = harness.must_exit(6.0, f"with a grace of 1 s{harness.no_grace}")
    return f"exited {seconds:.2f} s after the signal; {harness.exit_words}"

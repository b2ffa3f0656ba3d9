"""An application that blocks the event loop."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="app-blocks-loop",
    title="An application that blocks the event loop is bounded",
    group="Applications that misbehave",
    clause="The kill timer of whoever supervises the process: ten seconds with Docker, thirty with Kubernetes.",
    basis=Basis.SUPERVISOR,
    reason="A call without a timeout in an async handler stops the loop. The process must end all the same.",
    rule="A handler blocks the loop for a minute; the grace is 1 s. Exits within 10 s.",
    tolerance="see the rule",
    sources=("Abilityai/trinity#131",),
)
def app_blocks_loop(harness: Harness) -> str:
    """A request that blocks, SIGTERM."""
    harness.serve(grace=1, lifespan_timeout=1)
    harness.open("/block?s=60")
    harness.must_see("note", "/block")
    harness.signal()
    seconds = harness.must_exit(10.0, f"with a grace of 1 s{harness.no_grace}")
    return f"exited {seconds:.2f} s after the signal; {harness.exit_words}"

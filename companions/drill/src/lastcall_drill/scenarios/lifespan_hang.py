"""A shutdown that never ends."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "lifespan",
    id="lifespan-hang",
    title="A lifespan.shutdown that hangs is bounded",
    group="Lifespan",
    clause="The kill timer of whoever supervises the process: ten seconds with Docker, thirty with Kubernetes.",
    basis=Basis.SUPERVISOR,
    reason="A database that does not answer any more must not make the operator use SIGKILL.",
    rule="lifespan.shutdown hangs; the grace is 2 s, as is its own limit where there is one. Exits within 10 s.",
    tolerance="see the rule",
    sources=("Kludex/uvicorn#2751",),
)
def lifespan_hang(harness: Harness) -> str:
    """SIGTERM to an idle server whose application does not end."""
    harness.serve(grace=2, lifespan_timeout=2, shutdown="hang")
    harness.signal()
    seconds = harness.must_exit(10.0, "with a lifespan.shutdown that does not end")
    return f"exited {seconds:.2f} s after the signal; {harness.exit_words}"

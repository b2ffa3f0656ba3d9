"""What a stop writes."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    id="log-quiet",
    title="Tasks that the server cancels leave no traceback",
    group="Process and sockets",
    clause="A cancel that the server has ordered is no error of the application.",
    basis=Basis.VIEW,
    reason="Alerts are made from tracebacks. Ten at each deployment hide the one that matters.",
    rule="A stream and a request are ended at a grace of 1 s: no line with 'Traceback' in the output.",
    tolerance="3 s for the exit",
    sources=("PrefectHQ/fastmcp#3025", "cenodude/CrossWatch#1136"),
)
def log_quiet(harness: Harness) -> str:
    """Two requests, SIGTERM."""
    harness.serve(grace=1)
    harness.stream("/inf", "stream")
    harness.open("/slow?s=60", "slow")
    harness.must_see("request", "/slow")
    harness.signal()
    harness.exited(1.0 + 3.0)
    found = harness.server.output().count("Traceback (most recent call last)")
    if found:
        raise Failed(f"{found} {'traceback' if found == 1 else 'tracebacks'} in the output")
    if harness.server.exit_code is None:
        raise Failed(f"still running 3.0 s after its grace of 1 s{harness.no_grace}")
    return f"{len(harness.server.output().splitlines())} lines of output, no traceback"

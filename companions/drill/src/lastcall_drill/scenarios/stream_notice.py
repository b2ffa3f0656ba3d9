"""A notice that is no disconnect."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "notice",
    id="stream-notice",
    title="An application that heeds the server's drain notice ends long before the deadline",
    group="Streams",
    clause="The server's own notice for applications (an extension in the scope).",
    basis=Basis.VIEW,
    reason="A stream that is told may say farewell, and its client knows where to go on. Nobody waits for a deadline.",
    rule="The application is told within 1 s, its last words arrive with a proper end, and the process exits before "
    "half of a grace of 8 s is over.",
    tolerance="see the rule",
    sources=("django/asgiref#588", "emmett-framework/granian#796"),
)
def stream_notice(harness: Harness) -> str:
    """Open a stream that waits for the notice, SIGTERM."""
    harness.serve(grace=8)
    client, response = harness.stream("/notice")
    harness.signal()
    event = harness.wait_event("notice", "/notice", within=1.0)
    if event is None:
        raise Failed("the application was not told within 1 s")
    if not client.wait(response, harness.long(2.0)) or not response.body.endswith(b"data: bye\n\n"):
        raise Failed(f"the farewell did not arrive: {response.outcome}")
    seconds = harness.must_exit(4.0, "with nothing left to wait for")
    return f"told {harness.since_signal(event.at):.2f} s after the signal, farewell sent, exited after {seconds:.2f} s"

"""The reloader and an open stream."""

from contextlib import suppress

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "reload",
    id="reload-stream",
    title="A reload in development does not wait for an open stream",
    group="Process and sockets",
    clause="The reloader's purpose: changed code is served.",
    basis=Basis.VIEW,
    reason="A browser with live reload has an endless stream open. A reloader that waits for it hangs at each change.",
    rule="With an endless stream open and a grace of 2 s the application's file is changed: the new code answers "
    "within 6 s.",
    tolerance="see the rule",
    sources=("Kludex/uvicorn#2943", "adamchainz/django-browser-reload#255"),
)
def reload_stream(harness: Harness) -> str:
    """Open the stream, change the file, ask."""
    harness.serve(grace=2, reload=True)
    harness.stream("/inf")
    file = harness.directory / "drill_subject" / "routes.py"
    harness.sleep(1.0)  # watchers compare times of files
    file.write_text(
        file.read_text() + "\n\nasync def new(request):\n    await request.answer('new')\n\n\nROUTES['/ok'] = new\n"
    )
    harness.timeline.signal("the application's file is changed")
    while harness.since_signal() < 6.0:
        with suppress(OSError):
            if harness.ask("/ok", within=1.0).body == b"new":
                return f"the new code answered {harness.since_signal():.2f} s after the change"
        harness.sleep(0.05)
    raise Failed("the new code did not answer within 6 s of the change")

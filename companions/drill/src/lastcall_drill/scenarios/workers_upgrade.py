"""The server itself is replaced while it serves."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.process import exit_words
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.scenarios.workers_reload import CLIENTS, answering
from lastcall_drill.traffic import Traffic
from lastcall_drill.verdicts import Basis

WITHIN = 15.0


@scenario(
    "workers",
    "upgrade",
    deadline=75.0,
    id="workers-upgrade",
    title="An upgrade of the server itself by SIGUSR2 loses no request",
    group="Several workers",
    clause="The signal's purpose: another release of the server takes the listeners over without downtime.",
    basis=Basis.VIEW,
    reason="A fix of the server itself has to be rolled out, and no client has to know of it.",
    rule="2 workers; 4 clients that ask all the time, each request on a connection of its own, and a stream of 4 s; "
    "the code is changed, then SIGUSR2, and, where the documentation says so, SIGTERM to the old parent once the new "
    "code answers: the stream is complete, no request is without answer, the old parent ends within 15 s after that, "
    "with an exit code that counts as clean, and the new code answers everyone then.",
    tolerance="5 s for each request",
    sources=("https://docs.gunicorn.org/en/stable/signals.html",),
)
def workers_upgrade(harness: Harness) -> str:
    """Ask and ask, change the code, SIGUSR2."""
    harness.serve(workers=2, editable=True)
    harness.must_start_workers(2)
    with Traffic(harness, fresh=CLIENTS) as traffic:
        traffic.must_become(b"ok", harness.since_signal() + 5.0, "the old code")
        client, stream = harness.stream("/fin?n=20&every=0.2", "stream")
        harness.edit(answering("new"))
        harness.signal(signal.SIGUSR2)
        if not harness.wait_for(lambda: b"new" in traffic.latest(), WITHIN):
            traffic.must_lose_nothing()
            raise Failed(f"the new code did not answer within {WITHIN:g} s")
        how = "by itself" if harness.has("hands-over") else "after SIGTERM"
        if not harness.has("hands-over"):
            harness.signal(signal.SIGTERM)
        client.wait(stream, harness.long(WITHIN))
        ended = harness.exited(harness.since_signal() + WITHIN)
        traffic.forget()
        if ended is None:
            traffic.must_lose_nothing()
            raise Failed(f"the old parent was still running {harness.since_signal():.1f} s after SIGUSR2")
        traffic.must_become(b"new", harness.since_signal() + 5.0, "the new code")
    traffic.must_lose_nothing()
    if not stream.complete:
        when = harness.since_signal(stream.ended)
        raise Failed(f"all requests were answered; of the stream {stream.outcome}, {when:.2f} s after the signal")
    code = harness.server.exit_code
    if code not in (0, -signal.SIGTERM):
        raise Failed(f"all requests were answered; the old parent ended with {exit_words(code or 0)}")
    return f"all {traffic.sent} requests and the stream were answered; the old parent ended {how}, {ended:.2f} s after"

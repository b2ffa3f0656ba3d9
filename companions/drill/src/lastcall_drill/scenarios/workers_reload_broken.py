"""A reload with code that cannot start."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.process import exit_words
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.scenarios.workers_reload import CLIENTS
from lastcall_drill.traffic import Traffic
from lastcall_drill.verdicts import Basis

SECONDS = 6.0


@scenario(
    "workers",
    "restart",
    id="workers-reload-broken",
    title="A reload by SIGHUP with code that cannot be imported changes nothing",
    group="Several workers",
    clause="The signal's purpose: workers are replaced without downtime. There is nothing to replace them with.",
    basis=Basis.VIEW,
    reason="A typing error in a deploy must not be an outage: what served before it can go on.",
    rule="2 workers, 4 clients that ask all the time; the application gets a syntax error, then SIGHUP: for 6 s all "
    "requests are answered, by the old code, and the server runs on.",
    tolerance="5 s for each request",
)
def workers_reload_broken(harness: Harness) -> str:
    """Ask and ask, break the code, SIGHUP."""
    harness.serve(workers=2, editable=True)
    harness.must_start_workers(2)
    with Traffic(harness, fresh=CLIENTS) as traffic:
        traffic.must_become(b"ok", harness.since_signal() + 5.0, "the old code")
        harness.edit("this is no Python\n")
        harness.signal(signal.SIGHUP)
        if harness.wait_for(lambda: traffic.lost or not harness.server.running, SECONDS):
            harness.exited(harness.since_signal() + 2.0)  # refused clients come before the end of the process
        seconds = harness.since_signal()
    if not harness.server.running:
        code = harness.server.exit_code
        how = exit_words(code) if code is not None else "no exit code"
        raise Failed(f"the server ended {seconds:.2f} s after the signal, {how}")
    traffic.must_lose_nothing()
    return f"all {traffic.sent} requests were answered by the old code, until {seconds:.2f} s after the signal"

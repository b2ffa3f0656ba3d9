"""Workers that are replaced while clients come and go."""

import signal

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import scenario
from lastcall_drill.traffic import Traffic
from lastcall_drill.verdicts import Basis

CLIENTS = 4
ROUNDS = 3
WITHIN = 15.0


@scenario(
    "workers",
    "restart",
    deadline=90.0,
    id="workers-reload",
    title="A reload by SIGHUP loses no request, and new code serves after it",
    group="Several workers",
    clause="The signal's purpose, in the documentation of all that have it: workers are replaced without downtime.",
    basis=Basis.VIEW,
    reason="This is how a deploy on one machine is done. Its errors are seen by whoever happens to ask meanwhile.",
    rule="2 workers, 4 clients that ask all the time, each request on a connection of its own; the application's code "
    "is changed, then SIGHUP, three times: no request is without answer, and 15 s after each all are answered by the "
    "new code.",
    tolerance="5 s for each request",
    sources=("Kludex/uvicorn#2289", "benoitc/gunicorn#1236"),
)
def workers_reload(harness: Harness) -> str:
    """Ask and ask, change the code, SIGHUP."""
    return reload_under(harness, fresh=CLIENTS)


def reload_under(harness: Harness, *, fresh: int = 0, kept: int = 0) -> str:
    """SIGHUP with new code, again and again, while such clients ask."""
    harness.serve(workers=2, editable=True)
    harness.must_start_workers(2)
    slowest = 0.0
    with Traffic(harness, fresh=fresh, kept=kept) as traffic:
        traffic.must_become(b"ok", harness.since_signal() + 5.0, "the old code")
        for number in range(1, ROUNDS + 1):
            harness.edit(answering(f"new-{number}"))
            harness.signal(signal.SIGHUP)
            begin = harness.since_signal()
            end = traffic.must_become(f"new-{number}".encode(), begin + WITHIN, "the new code")
            slowest = max(slowest, end - begin)
            harness.sleep(1.0)
    traffic.must_lose_nothing()
    told = f", {traffic.told} connections after Connection: close" * bool(kept)
    new = f"the new code answered all within {slowest:.2f} s of each SIGHUP"
    return f"all {traffic.sent} requests were answered{told}; {new}"


def answering(word: str) -> str:
    """Code that lets /ok answer with a word."""
    return f"async def changed(request):\n    await request.answer({word!r})\n\n\nROUTES['/ok'] = changed\n"

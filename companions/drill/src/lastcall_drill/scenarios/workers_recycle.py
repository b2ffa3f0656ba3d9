"""Workers that are replaced after some requests."""

import threading

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

LIMIT = 30
CLIENTS = 4
EACH = 100


@scenario(
    "workers",
    "max_requests",
    signals=False,
    id="workers-recycle",
    title="Recycling workers loses no request",
    group="Several workers",
    clause="The option's purpose is to replace a worker, not to drop requests. RFC 9112 9.6: nothing is reset.",
    basis=Basis.VIEW,
    reason="An option against memory leaks that costs a request per thousand is an error rate that nobody can explain.",
    rule="2 workers that are replaced after 30 requests; 4 clients send 100 requests each, each on a connection of "
    "its own: all 400 are answered.",
    tolerance="5 s for each",
    sources=("benoitc/gunicorn#2567", "benoitc/gunicorn#3038"),
)
def workers_recycle(harness: Harness) -> str:
    """Ask and ask."""
    harness.serve(workers=2, max_requests=LIMIT)
    lost: list[str] = []

    def ask_on(number: int) -> None:
        for _ in range(EACH):
            try:
                response = harness.ask("/ok", f"client-{number}")
            except OSError as error:
                lost.append(type(error).__name__)
            else:
                if response.status != 200:
                    lost.append(response.outcome)

    threads = [threading.Thread(target=ask_on, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if lost:
        raise Failed(f"{len(lost)} of {CLIENTS * EACH} requests had no answer; the first: {lost[0]}")
    recycled = len({event.who for event in harness.events("lifespan-startup")})
    return f"all {CLIENTS * EACH} requests were answered, by {recycled} workers one after another"

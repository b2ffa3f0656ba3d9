"""Requests within five milliseconds of the signal."""

import time

from lastcall_drill.client import HTTPClient, Response
from lastcall_drill.connection import End
from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

ROUNDS = 20  # some lose all that was sent before the signal, but in one stop of five
BEFORE, AFTER = 10, 100  # requests of a round
BEFORE_SECONDS, AFTER_SECONDS = 0.005, 0.15

Sent = tuple[HTTPClient, Response, float]


@scenario(
    deadline=120.0,
    id="request-at-signal",
    title="Requests that meet the signal are not lost",
    group="Requests",
    clause="RFC 9112 9.6: a server closes in stages, so that no reset destroys what is under way.",
    basis=Basis.STANDARD,
    reason="Under load there is always somebody whose request is in the socket when the server begins to close. "
    "Closed unread, it is reset: a 502 at the proxy, at each deployment.",
    rule="20 stops with 110 requests each, on connections that were open before. 10 are sent in the 5 ms before the "
    "signal: they are answered. 100 are sent in the 150 ms after it: they are answered or get a FIN, none is reset.",
    tolerance="none",
    sources=("Kludex/uvicorn#3124",),
)
def request_at_signal(harness: Harness) -> str:
    """Connect, send around the signal, wait for all; until something is lost, or twenty times."""
    before = after = 0
    for number in range(1, ROUNDS + 1):
        harness.serve()
        sent, signalled = around_signal(
            harness, [harness.connect(f"client-{number}-{one}") for one in range(BEFORE + AFTER)]
        )
        lost = reset = 0
        for client, response, at in sent:
            client.wait(response, harness.long(3.0 - harness.since_signal()))
            if at < signalled:
                before += 1
                lost += not response.complete
            else:
                after += 1
                reset += not response.complete and client.end is End.RST
        harness.exited(3.0)
        if lost or reset:
            seen = f"in stop {number} of {ROUNDS}, {lost} of {BEFORE} requests sent before the signal had no answer"
            raise Failed(f"{seen}, {reset} of {AFTER} sent after it were reset")
    return f"all {before} requests sent before the signal were answered, none of {after} sent after it was reset"


def around_signal(harness: Harness, clients: list[HTTPClient]) -> tuple[list[Sent], float]:
    """Send a request by each client, spread over the time, and the signal between two: when each was sent."""
    sent: list[Sent] = []
    signalled = 0.0
    middle = time.monotonic() + 2 * BEFORE_SECONDS
    for number, client in enumerate(clients):
        if number < BEFORE:
            _wait_until(middle - BEFORE_SECONDS * (BEFORE - number) / BEFORE)
        elif number == BEFORE:
            _wait_until(middle)
            signalled = harness.signal()
        else:
            _wait_until(middle + AFTER_SECONDS * (number - BEFORE) / AFTER)
        response = client.request("/ok")
        sent.append((client, response, time.monotonic()))
    return sent, signalled


def _wait_until(moment: float) -> None:
    if (far := moment - time.monotonic()) > 0.002:
        time.sleep(far - 0.001)
    while time.monotonic() < moment:
        pass

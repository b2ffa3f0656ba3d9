"""A connection that is used again just when its time is over."""

import time

from lastcall_drill.client import HTTPClient
from lastcall_drill.connection import End
from lastcall_drill.harness import Harness, resets
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

ROUNDS = 4
CLIENTS = 400  # of a round, if they can be opened in time
TIMEOUT = 2
WINDOW = 0.01  # seconds on either side of the timeout


@scenario(
    "keep_alive",
    signals=False,
    id="connection-idle-race",
    title="A request that meets the idle timeout is not reset",
    group="Connections",
    clause="RFC 9112 9.5: a client may send while the server closes. 9.6: it closes in stages, against resets.",
    basis=Basis.STANDARD,
    reason="Proxies reuse connections that the server is about to close. A reset is the 502 that comes once a day.",
    rule="Four times up to 400 connections that are used again from 10 ms before a keep-alive timeout of 2 s to 10 ms "
    "after it: each gets an answer or a FIN, and none a reset without a FIN before it.",
    tolerance="none",
    sources=("lsst-sqre/phalanx#5103", "conbench/conbench#1156"),
)
def connection_idle_race(harness: Harness) -> str:
    """Use each connection once, and again at its timeout."""
    harness.serve(keep_alive=TIMEOUT)
    clients: list[HTTPClient] = []
    for number in range(ROUNDS):
        clients += used_twice(harness, number)
        if resets(clients):
            break
    answered = sum(client.responses[-1].complete for client in clients)
    if resets(clients):
        raise Failed(f"{len(resets(clients))} of {len(clients)} were reset, {answered} answered")
    closed = sum(client.end is End.FIN and not client.responses[-1].complete for client in clients)
    return f"{answered} of {len(clients)} were answered, {closed} got a FIN"


def used_twice(harness: Harness, number: int) -> list[HTTPClient]:
    """Connections of one round, when all have got what they get."""
    due: list[tuple[float, HTTPClient]] = []
    until = time.monotonic() + harness.long(TIMEOUT) / 2
    while len(due) < CLIENTS and time.monotonic() < until:
        client = harness.connect(f"client-{number}-{len(due)}")
        ended = client.get("/ok").ended or time.monotonic()
        due.append((ended + harness.long(TIMEOUT) + WINDOW * (2 * (len(due) % 100) / 100 - 1), client))
    for moment, client in sorted(due, key=lambda one: one[0]):
        time.sleep(max(0.0, moment - time.monotonic()))
        client.request("/ok")
    for _, client in due:
        client.wait(client.responses[-1], harness.long(2.0))
        client.close()
    return [client for _, client in due]

"""A connection that is used again just when its time is over."""

import time

from lastcall.drill.connection import End
from lastcall.drill.rig import Rig, resets
from lastcall.drill.scenario import Failed, scenario

CLIENTS = 120
WINDOW = 0.01  # seconds on either side of the timeout


@scenario(
    "keep_alive",
    id="connection-idle-race",
    title="A request that meets the idle timeout is not reset",
    group="Connections",
    clause="RFC 9112 9.5: a client may send while the server closes. 9.6: it closes in stages, against resets.",
    reason="Proxies reuse connections that the server is about to close. A reset is the 502 that comes once a day.",
    rule="120 connections that are used again from 10 ms before a keep-alive timeout of 2 s to 10 ms after it: each "
    "gets an answer or a FIN, and none a reset without a FIN before it.",
    tolerance="none",
    sources=("lsst-sqre/phalanx#5103", "conbench/conbench#1156"),
)
def connection_idle_race(rig: Rig) -> str:
    """Use each connection once, and again at its timeout."""
    timeout = 2
    rig.serve(keep_alive=timeout)
    clients = [rig.connect(f"client-{number}") for number in range(CLIENTS)]
    due = []
    for number, client in enumerate(clients):
        ended = client.get("/ok").ended or time.monotonic()
        due.append(ended + rig.long(timeout) + WINDOW * (2 * number / CLIENTS - 1))
    for client, moment in sorted(zip(clients, due, strict=True), key=lambda one: one[1]):
        time.sleep(max(0.0, moment - time.monotonic()))
        client.request("/ok")
    for client in clients:
        client.wait(client.responses[-1], rig.long(2.0))
    answered = sum(client.responses[-1].complete for client in clients)
    if resets(clients):
        raise Failed(f"{len(resets(clients))} of {CLIENTS} were reset, {answered} answered")
    closed = sum(client.end is End.FIN and not client.responses[-1].complete for client in clients)
    return f"{answered} of {CLIENTS} were answered, {closed} got a FIN"

"""Kept-alive connections without a request."""

from lastcall_drill.connection import End
from lastcall_drill.harness import Harness, resets
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

CLIENTS = 20


@scenario(
    id="connection-idle",
    title="Idle kept-alive connections do not delay the exit, and get a FIN",
    group="Connections",
    clause="RFC 9112 9.6: a server closes gracefully. The server's own grace is for work, and there is none.",
    basis=Basis.VIEW,
    reason="Proxies keep dozens of idle connections open. A stop that waits for them delays each deployment.",
    rule="20 connections with one request each: exits within 1 s of a grace of 5 s, and all connections get a FIN.",
    tolerance="1 s more for the exit",
    sources=("emmett-framework/granian#611", "benoitc/gunicorn#3661"),
)
def connection_idle(harness: Harness) -> str:
    """Use each connection once, SIGTERM."""
    harness.serve()
    clients = [harness.connect(f"client-{number}") for number in range(CLIENTS)]
    kept = [client for client in clients if client.get("/ok").complete and not client.responses[0].says_close]
    harness.signal()
    seconds = harness.must_exit(2.0, "with idle connections only")
    ends = [client.wait_end(harness.long(1.0)) for client in kept]
    if End.RST in ends:
        raise Failed(f"{len(resets(kept))} of {len(kept)} idle connections were reset")
    return f"exited {seconds:.2f} s after the signal; {ends.count(End.FIN)} connections got a FIN"

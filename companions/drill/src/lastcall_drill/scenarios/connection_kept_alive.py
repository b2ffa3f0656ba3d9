"""A client that goes on asking."""

from lastcall_drill.connection import End
from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis

NOTICED = 1.3  # seconds in which a server has noticed a signal


@scenario(
    id="connection-kept-alive",
    title="A kept-alive connection gets one more answer at most, which says so",
    group="Connections",
    clause='RFC 9112 9.6: the final response says "close", and after it the connection is closed.',
    basis=Basis.STANDARD,
    reason="Where kept-alive connections are served on, a drain under load never ends; where they are cut without a "
    "word, requests are lost.",
    rule="While another request holds the drain for 3 s, a client asks every 0.1 s. From 1.3 s after the signal on it "
    "gets one answer at most, with Connection: close; the connection then ends with a FIN.",
    tolerance="1.3 s in which the server may still be unaware of the signal",
    sources=("emmett-framework/granian#548", "benoitc/gunicorn#1236"),
)
def connection_kept_alive(harness: Harness) -> str:
    """One request that holds the drain, and a connection that is used again and again."""
    harness.serve()
    harness.open("/slow?s=3.3", "holder")
    harness.must_see("request", "/slow")
    client = harness.connect("asker")
    client.get("/ok")
    harness.signal()
    late = closing = 0
    while client.end is None and harness.since_signal() < 3.0:
        asked = harness.since_signal()
        response = client.get("/ok", harness.long(1.0))
        closing += response.complete and response.says_close
        if response.complete and asked > NOTICED:
            late += 1
            if late > 1 or not response.says_close:
                how = "answered again" if response.says_close else "answered without Connection: close"
                raise Failed(f"asked {asked:.1f} s after the signal, it was {how}")
        if client.end is None:
            harness.sleep(0.1)
    if client.wait_end(harness.long(0.5)) is End.RST:
        raise Failed(f"the connection was reset {harness.since_signal(client.ended):.2f} s after the signal")
    if client.end is None:
        raise Failed("the connection was still open 3 s after the signal")
    announced = "announced by Connection: close" if closing else "not announced, with no request under way"
    return f"a FIN {harness.since_signal(client.ended):.2f} s after the signal, {announced}"

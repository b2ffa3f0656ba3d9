"""The file that a killed server has left."""

import socket

from lastcall_drill.errors import DrillError
from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "unix",
    signals=False,
    id="unix-socket-stale",
    title="A stale unix socket file does not prevent the start",
    group="Process and sockets",
    clause="unix(7): bind() fails with EADDRINUSE on a file that is there, even if nobody listens.",
    basis=Basis.SUPERVISOR,
    reason="After a kill or a power cut the server should start without somebody who removes a file.",
    rule="The file of a socket that nobody listens on is there; the server starts and answers.",
    tolerance="20 s for the start",
)
def unix_socket_stale(harness: Harness) -> str:
    """Leave a socket file, start, ask."""
    path = harness.directory / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    harness.serve(path=path, ready=False)
    try:
        harness.wait_ready()
    except DrillError:
        how = "did not answer within 20 s" if harness.server.exit_code is None else f"ended: {harness.exit_words}"
        raise Failed(f"the start {how}") from None
    return "started and answered"

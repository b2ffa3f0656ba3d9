"""The file of a unix socket."""

from lastcall_drill.harness import Harness
from lastcall_drill.scenario import Failed, scenario
from lastcall_drill.verdicts import Basis


@scenario(
    "unix",
    id="unix-socket-removed",
    title="The file of a unix socket is gone after the stop",
    group="Process and sockets",
    clause="unix(7): a socket file stays until it is removed.",
    basis=Basis.VIEW,
    reason="A proxy that finds the file connects to nobody, and other programs take the server for running.",
    rule="After SIGTERM and the exit the file is not there.",
    tolerance="3 s for the exit",
)
def unix_socket_removed(harness: Harness) -> str:
    """Serve on a unix socket, SIGTERM."""
    path = harness.directory / "s"
    harness.serve(path=path)
    harness.signal()
    harness.must_exit(3.0)
    if path.exists():
        raise Failed(f"the file is still there; {harness.exit_words}")
    return f"the file is gone; {harness.exit_words}"

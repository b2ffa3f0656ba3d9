"""The client of `idle`, a process of its own: opens connections, keeps them, says whether they are still open.

    python idle_client.py PORT COUNT fresh|served

Prints `open N` once all are open (and, for "served", each has had one answer), waits for a line on stdin, prints
`alive N` and ends.
"""

from __future__ import annotations

import socket
import sys
import time

_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_BURST = 50  # connections opened before the server gets time to accept them


def _open(port: int, *, served: bool) -> socket.socket:
    """One connection, with one request answered on it if `served`."""
    client = socket.create_connection(("127.0.0.1", port), 10)
    if served:
        client.sendall(_REQUEST)
        received = b""
        while not received.endswith(b"Hello, World!"):
            data = client.recv(4096)
            if not data:
                raise ConnectionError("closed before the answer")
            received += data
    return client


def _alive(client: socket.socket) -> bool:
    """Whether the server has neither closed the connection nor sent anything unasked."""
    client.setblocking(False)
    try:
        client.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def main() -> None:
    """Open, wait, count."""
    port, count, state = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    clients = []
    for number in range(count):
        clients.append(_open(port, served=state == "served"))
        if number % _BURST == 0:
            time.sleep(0.002)
    print("open", len(clients), flush=True)
    sys.stdin.readline()
    print("alive", sum(map(_alive, clients)), flush=True)


if __name__ == "__main__":
    main()

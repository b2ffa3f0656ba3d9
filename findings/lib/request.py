"""A raw client: ``request.py PORT METHOD PATH VERSION [seconds [body-bytes [sent-bytes]]]``.

Prints the answer's bytes, escaped. A last line says how it ended: FIN, RST, or still open after that many seconds
(5). With ``sent-bytes`` less than ``body-bytes`` the upload is not finished before reading.
"""

import socket
import sys

port, method, path, version = int(sys.argv[1]), *sys.argv[2:5]
seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 5.0
body = int(sys.argv[6]) if len(sys.argv) > 6 else 0
sent = int(sys.argv[7]) if len(sys.argv) > 7 else body
length = f"Content-Length: {body}\r\n" if body else ""
with socket.create_connection(("127.0.0.1", port), seconds) as peer:
    peer.sendall(f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n{length}\r\n".encode() + b"x" * sent)
    answer, end = b"", "FIN"
    try:
        while data := peer.recv(65536):
            answer += data
    except ConnectionResetError:
        end = "RST"
    except TimeoutError:
        end = "open"
print(answer.decode("latin-1").encode("unicode_escape").decode())
print(end)

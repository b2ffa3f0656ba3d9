#!/bin/bash
# uvicorn on uvloop (its extra "standard") resets the clients that wait in its accept queue at a stop; on asyncio it answers them.
#
# Guess:  the extra only makes the same server faster (uvloop, httptools): both stop alike.
# Really: of clients that had connected and sent their request while the event loop was busy, and were not accepted when the signal came,
#         bare uvicorn answers all. On uvloop each is reset.
# So:     what a stop loses under load depends on an extra that nobody chose for it.
# Seen:   uvicorn 0.54.0, uvloop 0.23.0, Linux.
. "$(dirname "$0")/lib/setup.bash"
pip "uvicorn[standard]==0.54.0" uvloop==0.23.0
cat >app.py <<'PYTHON'
import time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["path"] == "/busy":
        time.sleep(1.5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
PYTHON
cat >backlog.py <<'PYTHON'
import signal, socket, subprocess, sys, time

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
server = subprocess.Popen(
    [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--loop", sys.argv[1], "--http", sys.argv[2], "--log-level", "critical"]
)

def connect():
    return socket.create_connection(("127.0.0.1", port), 10)

while True:
    try:
        connect().close()
        break
    except OSError:
        time.sleep(0.1)

def ask(path):
    peer = connect()
    peer.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return peer

busy = ask("/busy")
time.sleep(0.5)
waiting = [ask("/") for _ in range(20)]
server.send_signal(signal.SIGTERM)
answered = 0
for peer in waiting:
    try:
        answered += peer.recv(100).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        pass
server.wait(20)
print("all" if answered == 20 else "none" if answered == 0 else "some")
PYTHON
expect "asyncio and h11 answered" "$("$python" backlog.py asyncio h11)" all
expect "uvloop and h11 answered" "$("$python" backlog.py uvloop h11)" none
expect "asyncio and httptools answered" "$("$python" backlog.py asyncio httptools)" all

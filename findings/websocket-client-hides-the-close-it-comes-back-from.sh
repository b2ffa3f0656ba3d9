#!/bin/bash
# websocket-client with reconnect= does not call on_close for a close that it comes back from.
#
# Guess:  on_close(code, reason) is called for each close, and on_open or on_reconnect when the next connection stands.
# Really: with run_forever(reconnect=N) on_close is not called at all while it reconnects: not for 1000, not for 1012 with a reason. The
#         application sees on_open, then on_reconnect each time, and never learns that a server has said why it goes. Without reconnect=
#         the same close is told with its code.
# So:     a farewell code cannot be acted upon there (to back off after 1013, say); what has to arrive is sent as a message before the Close.
# Seen:   websocket-client 1.9.2, against websockets 17.
. "$(dirname "$0")/lib/setup.bash"
pip websocket-client==1.9.2 websockets==17.0
cat >told.py <<'PYTHON'
import sys, threading, time
import websocket
from websockets.sync.server import serve

server = serve(lambda peer: peer.close(1012, "restart"), "127.0.0.1", 0)
threading.Thread(target=server.serve_forever, daemon=True).start()
said = {"open": 0, "reconnect": 0, "close": []}
app = websocket.WebSocketApp(
    f"ws://127.0.0.1:{server.socket.getsockname()[1]}/",
    on_open=lambda _: said.__setitem__("open", said["open"] + 1),
    on_reconnect=lambda _: said.__setitem__("reconnect", said["reconnect"] + 1),
    on_close=lambda _, code, reason: said["close"].append((code, reason)),
)
client = threading.Thread(target=app.run_forever, kwargs={"reconnect": 0.1} if sys.argv[1:] else {}, daemon=True)
client.start()
end = time.monotonic() + 10
while client.is_alive() and said["reconnect"] < 3 and time.monotonic() < end:
    time.sleep(0.02)
print(said["open"] + said["reconnect"] > 3, said["close"])
PYTHON
expect "without reconnect=: connected again, closes told" "$("$python" told.py 2>/dev/null)" "False [(1012, 'restart')]"
expect "with it" "$("$python" told.py reconnect 2>/dev/null)" "True []"

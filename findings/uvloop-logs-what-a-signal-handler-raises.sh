#!/bin/bash
# An exception that a Python signal handler raises stops asyncio's event loop, and is only logged by uvloop's.
#
# Guess:  uvloop is a drop-in: the exception leaves run_until_complete(), as it does in asyncio, whose users stop services so.
# Really: uvloop runs Python's handlers in a callback of its own; what they raise is an "Exception in callback", and the loop runs on.
# So:     a handler that raises (SystemExit is the exception in both) stops a service on one loop and does nothing on the other. A stop is
#         asked for by a flag or call_soon_threadsafe, never by raising.
# Seen:   uvloop 0.23.0, CPython 3.11 and later.
. "$(dirname "$0")/lib/setup.bash"
pip uvloop==0.23.0
cat >raises.py <<'PYTHON'
import asyncio, logging, os, signal, sys, threading, uvloop

logging.disable(logging.CRITICAL)

class Stop(Exception):
    pass

def handler(number, frame):
    raise Stop

loop = uvloop.new_event_loop() if sys.argv[1] == "uvloop" else asyncio.new_event_loop()
signal.signal(signal.SIGUSR1, handler)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1)).start()
try:
    loop.run_until_complete(asyncio.sleep(2))
    print("ran on")
except Stop:
    print("stopped")
PYTHON
expect "asyncio" "$("$python" raises.py asyncio)" "stopped"
expect "uvloop" "$("$python" raises.py uvloop)" "ran on"

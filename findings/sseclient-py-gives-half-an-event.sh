#!/bin/bash
# sseclient-py hands out the event in which a stream broke off, as if it had been whole.
#
# Guess:  what stands before the end without a blank line is thrown away: the HTML standard says so (9.2.6), and httpx-sse, openai and
#         anthropic do so.
# Really: the half data line comes out as a "message" like any other, and then the iteration ends, with no error.
# So:     a stream that is cut in an event reaches such a client as wrong data. A server writes each event in one piece.
# Seen:   sseclient-py 1.9.0, httpx-sse 0.4.3.
. "$(dirname "$0")/lib/setup.bash"
pip sseclient-py==1.9.0 requests==2.34.2 httpx==0.28.1 httpx-sse==0.4.3
read -r port <<<"$(ports 1)"
mkdir events
printf 'data: {"paid": 1}\n\ndata: {"paid": 12' >events/cut
start python3 "$lib/events.py" "$port"
listening "$port"
cat >read.py <<'PYTHON'
import sys, httpx, httpx_sse, requests, sseclient
url = sys.argv[1]
with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", url) as events:
    print([event.data for event in events.iter_sse()])
print([event.data for event in sseclient.SSEClient(requests.get(url, stream=True)).events()])
PYTHON
"$python" read.py "http://127.0.0.1:$port/cut" >seen.txt
expect "httpx-sse" "$(sed -n 1p seen.txt)" "['{\"paid\": 1}']"
expect "sseclient-py" "$(sed -n 2p seen.txt)" "['{\"paid\": 1}', '{\"paid\": 12']"

#!/bin/bash
# curl sends a POST a second time, unasked, when the connection that it reuses closes without an answer.
#
# Guess:  the second POST ends with code 52, "empty reply": POST is not idempotent (RFC 9110 9.2.2), and --retry was not given.
# Really: curl opens a new connection, sends the POST again and ends with code 0. The server has read it twice.
# So:     a server that closes a kept-alive connection after reading a request makes curl do it twice. What has been read is
#         answered, if only by a 503.
# Seen:   curl 7.88.1 of Debian 12.
. "$(dirname "$0")/lib/setup.bash"
deb curl=7.88.1-10+deb12u15 libcurl4=7.88.1-10+deb12u15
read -r port <<<"$(ports 1)"
start python3 "$lib/upstream.py" "$port"
listening "$port"
url=http://127.0.0.1:$port/once
code=0
LD_LIBRARY_PATH=$libraries root/usr/bin/curl -sS -o /dev/null -d pay=1 "$url" --next -sS -o /dev/null -d pay=2 "$url" || code=$?
expect "exit code" "$code" 0
expect "what the server read" "$(paste -sd ';' started.txt)" "POST /once 1;POST /once 2;POST /once 1"

#!/bin/bash
# ApacheBench counts answers that were cut, and connections closed without one, as complete requests.
#
# Guess:  an answer short of its Content-Length, or none at all, is a failed request; wrk counts each as a read error.
# Really: "Complete requests: 20, Failed requests: 0" for both, as long as they are all cut alike.
# So:     it cannot tell whether a stop lost anything.
# Seen:   ab 2.3 of apache2-utils 2.4.71, Debian 12.
. "$(dirname "$0")/lib/setup.bash"
deb apache2-utils=2.4.71-1~deb12u1 libaprutil1 libapr1
read -r port <<<"$(ports 1)"
start python3 "$lib/upstream.py" "$port"
listening "$port"
for path in short silent; do
    LD_LIBRARY_PATH=$libraries root/usr/bin/ab -q -n 20 -c 2 "http://127.0.0.1:$port/$path" >$path.txt 2>&1 || true
    expect "/$path" "$(awk '/^(Complete|Failed) requests/ {print $1, $3}' $path.txt | paste -sd ' ')" "Complete 20 Failed 0"
done

#!/bin/bash
# wget --post-data sends the POST again when the answer is cut, with a Range field.
#
# Guess:  wget continues a GET that was cut; a POST whose answer broke off fails at once.
# Really: it repeats the POST too, up to --tries (20) times, and asks for the missing range of the answer.
# So:     each cut of an answer to such a client is one more execution: an idempotency key belongs on it.
# Seen:   wget 1.21.3 of Debian 12.
. "$(dirname "$0")/lib/setup.bash"
deb wget=1.21.3-1+deb12u1
read -r port <<<"$(ports 1)"
start python3 "$lib/upstream.py" "$port"
listening "$port"
LD_LIBRARY_PATH=$libraries root/usr/bin/wget -q --tries=3 --waitretry=0 -O answer --post-data=pay=1 "http://127.0.0.1:$port/short" || true
expect "POSTs that the server read" "$(grep -c 'POST /short' started.txt)" 3

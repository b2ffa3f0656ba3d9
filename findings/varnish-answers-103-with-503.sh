#!/bin/bash
# Varnish answers 503 for a backend that sends 103 before its 200.
#
# Guess:  the interim response is dropped, or passed on; the 200 behind it reaches the client.
# Really: "503 Backend fetch failed", for each request: 103 is taken for a response that cannot be.
# So:     an application that sends early hints over HTTP/1.1 is down behind this proxy. (nginx takes the 103 for the final answer.)
# Seen:   varnish 7.1.1 of Debian 12.
. "$(dirname "$0")/lib/setup.bash"
deb varnish=7.1.1-2+deb12u1 libvarnishapi3=7.1.1-2+deb12u1
read -r port upstream <<<"$(ports 2)"
start python3 "$lib/upstream.py" "$upstream"
printf 'vcl 4.0;\nbackend default { .host = "127.0.0.1"; .port = "%s"; }\nsub vcl_recv { return (pass); }\n' "$upstream" >default.vcl
export LD_LIBRARY_PATH=$libraries
start root/usr/sbin/varnishd -F -n "$folder/varnish" -a "127.0.0.1:$port" -f "$folder/default.vcl" -s malloc,10m -j none
unset LD_LIBRARY_PATH
listening "$port"
listening "$upstream"
expect "plain answer" "$(python3 "$lib/request.py" "$port" GET /ok 1.1 1 | sed -n 1p | sed 's/\\r.*//')" "HTTP/1.1 200 OK"
expect "answer behind a 103" "$(python3 "$lib/request.py" "$port" GET /hints 1.1 1 | sed -n 1p | sed 's/\\r.*//')" "HTTP/1.1 503 Backend fetch failed"

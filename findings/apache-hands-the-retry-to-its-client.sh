#!/bin/bash
# Apache httpd closes its client's connection, without a byte, when a kept upstream connection closes without an answer.
#
# Guess:  502, as when the first request of an upstream connection is not answered; or the request is sent again.
# Really: the client sees an empty answer on its own kept connection, which most clients take for a stale one: curl and Chromium
#         then send the request again, POST too.
# So:     behind httpd an upstream's silent close comes out as a repeated POST, and no 502 is in any log.
# Seen:   apache2 2.4.71 of Debian 12, mod_proxy_http, the default proxy-initial-not-pooled unset.
. "$(dirname "$0")/lib/setup.bash"
deb apache2-bin=2.4.71-1~deb12u1 libaprutil1 libapr1
read -r port upstream <<<"$(ports 2)"
start python3 "$lib/upstream.py" "$upstream"
cat >httpd.conf <<CONF
ServerRoot $root/usr/lib/apache2
ServerName localhost
PidFile $folder/pid
ErrorLog $folder/errors
Mutex file:$folder
DefaultRuntimeDir $folder
Listen 127.0.0.1:$port
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule proxy_module modules/mod_proxy.so
LoadModule proxy_http_module modules/mod_proxy_http.so
ServerLimit 1
ThreadsPerChild 4
MaxRequestWorkers 4
ProxyPass / http://127.0.0.1:$upstream/
CONF
export LD_LIBRARY_PATH=$libraries
start root/usr/sbin/apache2 -f "$folder/httpd.conf" -DFOREGROUND
unset LD_LIBRARY_PATH
listening "$port"
listening "$upstream"
expect "upstream closes a new connection" "$(python3 "$lib/request.py" "$port" GET /silent 1.1 1 | sed -n 1p | sed 's/\\r.*//')" "HTTP/1.1 502 Proxy Error"
cat >twice.py <<'PYTHON'
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as peer:
    for _ in range(2):
        peer.sendall(b"POST /once HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\npay=1")
        print((peer.recv(65536).split(b"\r\n")[0] or b"closed").decode(), end="; ")
PYTHON
expect "upstream closes a kept connection" "$(python3 twice.py "$port")" "HTTP/1.1 200 OK; closed; "

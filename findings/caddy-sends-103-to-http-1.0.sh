#!/bin/bash
# Caddy passes an upstream's 103 on to a client that speaks HTTP/1.0.
#
# Guess:  it is left out: an interim response is not sent to an HTTP/1.0 client (RFC 9110 15.2), whose parser takes it for the final one.
# Really: the client's first line is "HTTP/1.0 103 Early Hints". Apache httpd and lighttpd leave it out.
# So:     early hints are sent only to those who asked for them: a proxy in between does not protect the old ones.
# Seen:   caddy 2.6.2 of Debian 12.
. "$(dirname "$0")/lib/setup.bash"
deb caddy=2.6.2-5
read -r port upstream <<<"$(ports 2)"
start python3 "$lib/upstream.py" "$upstream"
printf '{\n admin off\n auto_https off\n}\nhttp://:%s {\n reverse_proxy 127.0.0.1:%s\n}\n' "$port" "$upstream" >Caddyfile
HOME=$folder start root/usr/bin/caddy run --adapter caddyfile --config Caddyfile
listening "$port"
listening "$upstream"
expect "first line" "$(python3 "$lib/request.py" "$port" GET /hints 1.0 1 | sed -n 1p | sed 's/\\r.*//')" "HTTP/1.0 103 Early Hints"

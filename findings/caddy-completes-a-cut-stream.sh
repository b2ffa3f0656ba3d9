#!/bin/bash
# Caddy 2.6 ends a stream that its upstream cut as if it had been complete.
#
# Guess:  a chunked answer that ends without its last chunk is passed on as it is, or reset: the client sees the cut (nginx does so).
# Really: Caddy writes the last chunk itself. The client has a whole answer of two events.
# So:     "a cut never looks complete" holds up to the proxy. Behind this one an end mark in the stream (or a Content-Length) tells.
# Seen:   caddy 2.6.2 of Debian 12.
. "$(dirname "$0")/lib/setup.bash"
deb caddy=2.6.2-5
read -r port upstream <<<"$(ports 2)"
start python3 "$lib/upstream.py" "$upstream"
printf '{\n admin off\n auto_https off\n}\nhttp://:%s {\n reverse_proxy 127.0.0.1:%s\n}\n' "$port" "$upstream" >Caddyfile
HOME=$folder start root/usr/bin/caddy run --adapter caddyfile --config Caddyfile
listening "$port"
listening "$upstream"
direct=$(python3 "$lib/request.py" "$upstream" GET /cut 1.1 | sed -n 1p)
behind=$(python3 "$lib/request.py" "$port" GET /cut 1.1 1 | sed -n 1p)
expect "the upstream's last chunk" "$(grep -c '\\r\\n0\\r\\n\\r\\n$' <<<"$direct" || true)" 0
expect "Caddy's last chunk" "$(grep -c '\\r\\n0\\r\\n\\r\\n$' <<<"$behind" || true)" 1

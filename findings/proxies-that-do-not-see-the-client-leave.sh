#!/bin/bash
# Behind lighttpd and h2o the upstream of a quiet event stream does not hear that its client has left.
#
# Guess:  a proxy watches its client and closes the upstream connection at once, as nginx, HAProxy and Caddy do.
# Really: 6 seconds after the client's FIN both still hold the upstream connection; they find out when the next event is written.
# So:     "the client has left" is no event that an application may wait for: streams send a comment line now and then.
# Seen:   lighttpd 1.4.69, h2o 2.2.5 and caddy 2.6.2 of Debian 12.
. "$(dirname "$0")/lib/setup.bash"
deb caddy=2.6.2-5 lighttpd=1.4.69-1 h2o=2.2.5+dfsg2-7
read -r caddy lighttpd h2o upstream <<<"$(ports 4)"
start python3 "$lib/upstream.py" "$upstream"
printf '{\n admin off\n auto_https off\n}\nhttp://:%s {\n reverse_proxy 127.0.0.1:%s\n}\n' "$caddy" "$upstream" >Caddyfile
HOME=$folder start root/usr/bin/caddy run --adapter caddyfile --config Caddyfile
cat >lighttpd.conf <<CONF
server.modules = ("mod_proxy")
server.document-root = "$folder"
server.bind = "127.0.0.1"
server.port = $lighttpd
server.stream-response-body = 1
proxy.server = ("" => (("host" => "127.0.0.1", "port" => $upstream)))
CONF
cat >h2o.conf <<CONF
listen: {host: 127.0.0.1, port: $h2o}
hosts: {"default": {paths: {"/": {proxy.reverse.url: "http://127.0.0.1:$upstream/"}}}}
CONF
export LD_LIBRARY_PATH=$libraries
start root/usr/sbin/lighttpd -D -f lighttpd.conf -m root/usr/lib/lighttpd
start root/usr/bin/h2o -c h2o.conf
unset LD_LIBRARY_PATH
for port in "$caddy" "$lighttpd" "$h2o" "$upstream"; do listening "$port"; done
leave() {
    : >started.txt
    python3 "$lib/request.py" "$1" GET /quiet 1.1 0.5 >/dev/null
    for _ in $(seq 80); do grep -hE '^(left|there)' started.txt && break; sleep 0.1; done
}
expect "caddy" "$(leave "$caddy" | sed 's/left after [01]/left at once/')" "left at once"
expect "lighttpd" "$(leave "$lighttpd")" "there for 6 s"
expect "h2o" "$(leave "$h2o")" "there for 6 s"

#!/bin/bash
# Caddy and Apache httpd give an early 503 to their client only when the client has sent its whole upload.
#
# Guess:  an answer that comes before the upload's end is passed on at once, as lighttpd (streaming) does.
# Really: for as long as the client is still sending nothing comes: not in Caddy, and not in httpd, which reads the body first.
# So:     a 503 with Retry-After that refuses an upload during a stop is heard late behind them; the server has to go on reading
#         until then, or the answer is lost with the connection.
# Seen:   caddy 2.6.2, apache2 2.4.71 and lighttpd 1.4.69 of Debian 12.
. "$(dirname "$0")/lib/setup.bash"
deb caddy=2.6.2-5 apache2-bin=2.4.71-1~deb12u1 libaprutil1 libapr1 lighttpd=1.4.69-1
read -r caddy httpd lighttpd upstream <<<"$(ports 4)"
start python3 "$lib/upstream.py" "$upstream"
printf '{\n admin off\n auto_https off\n}\nhttp://:%s {\n reverse_proxy 127.0.0.1:%s\n}\n' "$caddy" "$upstream" >Caddyfile
HOME=$folder start root/usr/bin/caddy run --adapter caddyfile --config Caddyfile
cat >httpd.conf <<CONF
ServerRoot $root/usr/lib/apache2
ServerName localhost
PidFile $folder/pid
ErrorLog $folder/errors
Mutex file:$folder
DefaultRuntimeDir $folder
Listen 127.0.0.1:$httpd
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule proxy_module modules/mod_proxy.so
LoadModule proxy_http_module modules/mod_proxy_http.so
ProxyPass / http://127.0.0.1:$upstream/
CONF
cat >lighttpd.conf <<CONF
server.modules = ("mod_proxy")
server.document-root = "$folder"
server.bind = "127.0.0.1"
server.port = $lighttpd
server.stream-request-body = 1
proxy.server = ("" => (("host" => "127.0.0.1", "port" => $upstream)))
CONF
export LD_LIBRARY_PATH=$libraries
start root/usr/sbin/apache2 -f "$folder/httpd.conf" -DFOREGROUND
start root/usr/sbin/lighttpd -D -f lighttpd.conf -m root/usr/lib/lighttpd
unset LD_LIBRARY_PATH
for port in "$caddy" "$httpd" "$lighttpd" "$upstream"; do listening "$port"; done
halfway() { python3 "$lib/request.py" "$1" POST /refuse 1.1 2 3000000 100000 | paste -sd ' ' | sed 's/\\r.* / ... /'; }
expect "straight to the upstream, a thirtieth sent" "$(halfway "$upstream")" "HTTP/1.1 503 Service Unavailable ... FIN"
expect "behind lighttpd" "$(halfway "$lighttpd" | sed 's/ \.\.\..*//')" "HTTP/1.1 503 Service Unavailable"
expect "behind caddy, after 2 s" "$(halfway "$caddy")" " open"
expect "behind httpd, after 2 s" "$(halfway "$httpd")" " open"

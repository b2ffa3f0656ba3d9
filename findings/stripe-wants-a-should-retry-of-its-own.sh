#!/bin/bash
# stripe's Python client obeys "stripe-should-retry: false" and ignores "x-should-retry: false", the name which openai and anthropic obey.
#
# Guess:  one of the two generated families of SDKs invented the header, and the others read it under the same name; a 409 that says it is
#         not to be retried is not.
# Really: with x-should-retry stripe repeats the 409 as often as it is allowed to.
# So:     a server whose 409 is final sends both.
# Seen:   stripe 16.1.0.
. "$(dirname "$0")/lib/setup.bash"
pip stripe==16.1.0
cat >retry.py <<'PYTHON'
import http.server, sys, threading
import stripe

asked = 0

class Final(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global asked
        asked += 1
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(409)
        self.send_header(sys.argv[1], "false")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "44")
        self.end_headers()
        self.wfile.write(b'{"error": {"message": "x", "type": "y_err"}}')

    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Final)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = stripe.StripeClient("sk_test_none", base_addresses={"api": f"http://127.0.0.1:{server.server_port}"}, max_network_retries=2)
try:
    client.v1.customers.create({"name": "none"})
except stripe.StripeError:
    pass
print(asked)
PYTHON
expect "requests, stripe-should-retry: false" "$("$python" retry.py Stripe-Should-Retry)" 1
expect "requests, x-should-retry: false" "$("$python" retry.py X-Should-Retry)" 3

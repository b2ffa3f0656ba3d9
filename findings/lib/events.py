"""Serves each file of the working directory's ``events/`` as a whole event stream. ``events.py PORT``."""

import http.server
import pathlib
import sys


class Events(http.server.BaseHTTPRequestHandler):
    """Answers GET with a file."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = pathlib.Path("events", self.path.strip("/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Events).serve_forever()

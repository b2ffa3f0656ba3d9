"""Applications for what the server puts around one: static files, compression, WSGI's threads."""

import time
from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError
    headers = [(b"content-type", b"text/plain")]
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for n in range(3):
            await send({"type": "http.response.body", "body": b"piece %d\n" % n, "more_body": True})
        await receive()
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    body = b"the application " * 100
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/block":
        print("blocking", flush=True)
        time.sleep(60)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["wsgi.input"].read() or b"plain"]

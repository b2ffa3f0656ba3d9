"""Counts the requests of clients that reconnect. ``reconnects.py PORT``; each request is a line on stdout.

/204   No Content          /503   Retry-After: 1
/end   one event with id 1, then the last chunk
"""

import asyncio
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        writer.close()
        return
    target = head.split(" ")[1]
    field = any(line.lower().startswith("last-event-id: 1") for line in head.split("\r\n"))
    print(target, "with Last-Event-ID" if field else "", flush=True)
    if target.startswith("/204"):
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    elif target.startswith("/503"):
        writer.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    else:
        event = b"retry: 200\nid: 1\ndata: one\n\n"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event))
    await writer.drain()
    writer.close()


async def main() -> None:
    """Serves until it is ended."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())

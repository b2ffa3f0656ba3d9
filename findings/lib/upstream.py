"""An HTTP/1.1 server that ends in the ways which a stopping service can show. ``upstream.py PORT``.

The path says what it does with a request; every request that was read is a line on stdout: ``METHOD PATH N``, N being
its number on its connection.

/ok         200, kept alive
/cut        a chunked event stream of two events, then FIN without the last chunk
/short      10 of 100 bytes of a Content-Length, then FIN
/once       200 to the first request of a connection; a later one is read, and the connection closed
/silent     closed without an answer
/quiet      one event, then nothing for 6 seconds; says on stdout how long the peer stayed
/hints      103, then 200
/refuse     503 and FIN as soon as the head is there, then reads on
"""

import asyncio
import sys
import time

STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
EVENT = b"b\r\ndata: one\n\n\r\n"


def answer(status: str, body: bytes, *fields: str) -> bytes:
    """A whole response with a length."""
    lines = [f"HTTP/1.1 {status}", "Cache-Control: no-store", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
    """One request. Says whether the connection goes on."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    if path != "/refuse" and length:
        await reader.readexactly(length)
    print(method, path, number, flush=True)
    if path == "/cut":
        for _ in range(2):
            writer.write(STREAM * (_ == 0) + EVENT)
            await writer.drain()
            await asyncio.sleep(0.2)
        return False
    if path == "/short":
        writer.write(answer("200 OK", b"0123456789").replace(b"Length: 10", b"Length: 100"))
        await writer.drain()
        await asyncio.sleep(0.1)
        return False
    if path == "/silent" or (path == "/once" and number > 1):
        return False
    if path == "/quiet":
        writer.write(STREAM + EVENT)
        began = time.monotonic()
        try:
            await asyncio.wait_for(reader.read(1), 6)
            print("left after", round(time.monotonic() - began), flush=True)
        except TimeoutError:
            print("there for 6 s", flush=True)
        except ConnectionError:
            print("left after", round(time.monotonic() - began), flush=True)
        return False
    if path == "/hints":
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)
    if path == "/refuse":
        writer.write(answer("503 Service Unavailable", b"stopping", "Retry-After: 1", "Connection: close"))
        writer.write_eof()
        while await reader.read(65536):
            pass
        return False
    writer.write(answer("200 OK", b"ok"))
    await writer.drain()
    return True


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, request after request."""
    number = 1
    try:
        while await exchange(reader, writer, number):
            number += 1
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serves until it is ended."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())

"""One object per client connection: a byte stream, a codec and ASGI cycles, under the timeouts and limits."""

"""Sans-IO codecs: bytes in, events or bytes out. No clock, socket, loop, log or await."""

#!/bin/bash
# write_eof() of an asyncio transport raises OSError once the peer has reset a connection that is not being read.
#
# Guess:  transport methods raise nothing for what the peer does: connection_lost() is called with the error, and write_eof() is silent.
# Really: while reading is paused nobody hears of the reset; write_eof() then raises ENOTCONN into its caller, and connection_lost() does
#         not come until something is written or reading goes on.
# So:     a server that half-closes behind backpressure needs a try around write_eof(), and cannot learn of a reset by waiting.
# Seen:   CPython 3.11 to 3.13, Linux.
. "$(dirname "$0")/lib/setup.bash"
cat >reset.py <<'PYTHON'
import asyncio, errno, socket, struct

class Paused(asyncio.Protocol):
    lost = False

    def connection_made(self, transport):
        self.transport = transport
        transport.pause_reading()

    def connection_lost(self, exc):
        self.lost = True

async def main():
    protocol = Paused()
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    peer = socket.create_connection(server.sockets[0].getsockname())
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await asyncio.sleep(0.2)
    peer.close()
    await asyncio.sleep(0.5)
    print("told" if protocol.lost else "not told", end=", ")
    try:
        protocol.transport.write_eof()
        print("silent")
    except OSError as error:
        print(errno.errorcode[error.errno])

asyncio.run(main())
PYTHON
expect "after a reset" "$(python3 reset.py)" "not told, ENOTCONN"

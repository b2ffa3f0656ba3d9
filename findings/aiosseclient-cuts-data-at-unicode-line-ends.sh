#!/bin/bash
# aiosseclient throws away what follows a U+2028 or U+0085 in a data line, and reads nothing of a stream with CR line ends.
#
# Guess:  lines end at CR, LF and CRLF only (HTML 9.2.5), as in httpx-sse since its fix of the same fault.
# Really: an event's text is split as str.splitlines() does, at ten more characters; what stands behind is no field and is dropped. A
#         CR, which is a line end, is none where the stream itself is read.
# So:     JSON with such a character unescaped comes out cut. json.dumps escapes it unless ensure_ascii=False, which web frameworks use.
# Seen:   aiosseclient 0.1.8.
. "$(dirname "$0")/lib/setup.bash"
pip aiosseclient==0.1.8 aiohttp==3.14.5
read -r port <<<"$(ports 1)"
mkdir events
printf 'data: {"a":"x\xe2\x80\xa8y"}\n\ndata: end\n\n' >events/separator
printf 'data: one\r\rdata: end\r\r' >events/returns
start python3 "$lib/events.py" "$port"
listening "$port"
cat >read.py <<'PYTHON'
import asyncio, sys
from aiosseclient import aiosseclient

async def main():
    data = []
    async for event in aiosseclient(sys.argv[1]):
        data.append(event.data)
        if event.data == "end":
            break
    print(data)

asyncio.run(main())
PYTHON
expect "a line separator" "$("$python" read.py "http://127.0.0.1:$port/separator" 2>/dev/null)" "['{\"a\":\"x', 'end']"
expect "carriage returns" "$("$python" read.py "http://127.0.0.1:$port/returns" 2>/dev/null)" "[]"

#!/bin/bash
# Seven Python readers of event streams lose the first event of a stream that begins with a byte order mark.
#
# Guess:  one leading U+FEFF is dropped before parsing, as the HTML standard says (9.2.6, "UTF-8 decode"), at least by most.
# Really: none does. The mark becomes part of the first field's name, which is unknown, and the event is gone without a word.
# So:     an encoder that begins with a mark (utf-8-sig, some .NET and Windows writers) costs the first event, often the one with the id.
# Seen:   the versions below.
. "$(dirname "$0")/lib/setup.bash"
pip sseclient-py==1.9.0 requests==2.34.2 requests-sse==0.5.3 httpx==0.28.1 httpx-sse==0.4.3 openai==3.57.0 anthropic==2.14.0 \
    aiosseclient==0.1.8 aiohttp-sse-client2==0.3.0 aiohttp==3.14.5
read -r port <<<"$(ports 1)"
mkdir events
printf '\xef\xbb\xbfdata: one\n\ndata: two\n\n' >events/marked
printf 'data: one\n\ndata: two\n\n' >events/plain
start python3 "$lib/events.py" "$port"
listening "$port"
cat >read.py <<'PYTHON'
import asyncio, sys
import anthropic._streaming, httpx, httpx_sse, openai._streaming, requests, requests_sse, sseclient
import aiohttp_sse_client2.client
from aiosseclient import aiosseclient

url, found = sys.argv[1], {}

def note(name, event):
    """Says whether both have come, or one which is the last."""
    found.setdefault(name, []).append(event.data)
    return event.data == "two"

with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", url) as events:
    any(note("httpx-sse", event) for event in events.iter_sse())
any(note("sseclient-py", event) for event in sseclient.SSEClient(requests.get(url, stream=True)).events())
with requests_sse.EventSource(url) as events:
    any(note("requests-sse", event) for event in events)
for module in (openai, anthropic):
    with httpx.stream("GET", url) as response:
        any(note(module.__name__, event) for event in module._streaming.SSEDecoder().iter_bytes(response.iter_bytes()))

async def others():
    async for event in aiosseclient(url):
        if note("aiosseclient", event):
            break
    async with aiohttp_sse_client2.client.EventSource(url) as events:
        async for event in events:
            if note("aiohttp-sse-client2", event):
                break

asyncio.run(asyncio.wait_for(others(), 20))
print(" ".join(sorted(name for name, data in found.items() if "one" in data)))
PYTHON
all="aiohttp-sse-client2 aiosseclient anthropic httpx-sse openai requests-sse sseclient-py"
expect "without the mark the first event comes to" "$("$python" read.py "http://127.0.0.1:$port/plain")" "$all"
expect "with it, to" "$("$python" read.py "http://127.0.0.1:$port/marked")" ""

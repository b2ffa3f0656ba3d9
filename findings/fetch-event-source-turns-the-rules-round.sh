#!/bin/bash
# @microsoft/fetch-event-source never stops at 204, repeats a 503 each second, and never comes back from a clean end.
#
# Guess:  204 ends it for good and a clean end reconnects (HTML 9.2.3); 503 fails the promise.
# Really: the other way round. A 204 has no content type, which is an error, and errors are retried each second, for ever; so is a 503,
#         without a look at Retry-After. A stream that ends with its last chunk resolves the promise, and nothing asks again.
# So:     there is no answer that suits both it and EventSource: 503 ends an EventSource, and an empty stream with "retry:" ends this one.
#         Where LLM front ends use it, lastcall is given --refuse-event-streams 503.
# Seen:   @microsoft/fetch-event-source 2.0.1, Node 20.
. "$(dirname "$0")/lib/setup.bash"
npm_install @microsoft/fetch-event-source@2.0.1
read -r port <<<"$(ports 1)"
start python3 "$lib/reconnects.py" "$port"
listening "$port"
cat >read.mjs <<'JS'
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
globalThis.window = globalThis;
const { fetchEventSource } = (await import("@microsoft/fetch-event-source")).default;
const said = {};
for (const path of ["204", "503", "end"])
  fetchEventSource(`${process.argv[2]}/${path}`, { openWhenHidden: true }).then(() => (said[path] = "resolved"), () => (said[path] = "rejected"));
setTimeout(() => { console.log(["204", "503", "end"].map((path) => `${path} ${said[path] ?? "goes on"}`).join(", ")); process.exit(0); }, 3700);
JS
expect "after 3.7 s" "$(node read.mjs "http://127.0.0.1:$port" 2>/dev/null)" "204 goes on, 503 goes on, end resolved"
several() { [ "$(grep -c "^/$1" started.txt)" -ge 3 ] && echo yes || echo no; }
expect "asked three times or more: 204" "$(several 204)" yes
expect "asked three times or more: 503" "$(several 503)" yes
expect "asked three times or more: end" "$(several end)" no

#!/bin/bash
# event-source-polyfill sends the last event's id in the query, not in the Last-Event-ID field, and goes on after a 204.
#
# Guess:  Last-Event-ID as EventSource sends it; 204 ends it (HTML 9.2.3); the eventsource package does both.
# Really: the second request is for ?lastEventId=1, a field is not sent. A 204 is an error after which it asks again.
# So:     a server that resumes by the field alone sends this client everything again; the id stands in access logs, and a route's cache
#         key changes with each event.
# Seen:   event-source-polyfill 1.0.31, eventsource 4.1.1, Node 20.
. "$(dirname "$0")/lib/setup.bash"
npm_install event-source-polyfill@1.0.31 eventsource@4.1.1
read -r port <<<"$(ports 1)"
start python3 "$lib/reconnects.py" "$port"
listening "$port"
cat >read.mjs <<'JS'
import polyfill from "event-source-polyfill";
import { EventSource } from "eventsource";
const Source = { polyfill: polyfill.EventSourcePolyfill, eventsource: EventSource }[process.argv[3]];
for (const path of ["204", "end"]) new Source(`${process.argv[2]}/${path}`);
setTimeout(() => process.exit(0), 3500);
JS
second() { : >started.txt; node read.mjs "http://127.0.0.1:$port" "$1" >/dev/null 2>&1; grep '^/end' started.txt | sed -n '2p' | sed 's/ $//'; }
again() { [ "$(grep -c '^/204' started.txt)" -ge 2 ] && echo "asks again" || echo "ends"; }
expect "eventsource, second request" "$(second eventsource)" "/end with Last-Event-ID"
expect "eventsource, after a 204" "$(again)" ends
expect "event-source-polyfill, second request" "$(second polyfill)" "/end?lastEventId=1"
expect "event-source-polyfill, after a 204" "$(again)" "asks again"

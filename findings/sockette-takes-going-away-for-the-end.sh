#!/bin/bash
# sockette, which is there to reconnect, does not after 1001 (going away) and after a Close without a code.
#
# Guess:  a client that reconnects comes back from every close that it did not ask for, or, if it reads codes, from all but 1000.
# Really: 1000, 1001 and 1005 are all "done". 1001 is what most servers send when they stop, and 1005 is what a Close without a code is
#         to its receiver. 1011, 1012, 1013 and a connection that just ends are come back from.
# So:     a farewell of 1001 parks these clients until somebody reloads the page; lastcall's is 1012 (service restart). rpc-websockets stays
#         away after 1000 alone: the code with which ASGI servers close when a handler returns.
# Seen:   sockette 2.0.6, rpc-websockets 10.0.1, with ws 8.23.0, Node 20.
. "$(dirname "$0")/lib/setup.bash"
npm_install sockette@2.0.6 rpc-websockets@10.0.1 ws@8.23.0
cat >codes.cjs <<'JS'
const ws = require("ws");
globalThis.WebSocket = ws.WebSocket;
const Sockette = require("sockette");
const { Client } = require("rpc-websockets");
const open = {
  sockette: (url) => new Sockette(url, { timeout: 100, maxAttempts: 50, onerror() {} }),
  "rpc-websockets": (url) => new Client(url, { reconnect_interval: 100, max_reconnects: 0 }).on("error", () => {}),
};
async function comesBack(name, how) {
  const server = new ws.WebSocketServer({ port: 0, host: "127.0.0.1" });
  let connections = 0;
  server.on("connection", (socket) => {
    connections += 1;
    setTimeout(() => (how === "cut" ? socket.terminate() : how === "empty" ? socket.close() : socket.close(Number(how))), 100);
  });
  await new Promise((done) => server.once("listening", done));
  open[name](`ws://127.0.0.1:${server.address().port}/`);
  await new Promise((done) => setTimeout(done, 1500));
  return connections > 1;
}
(async () => {
  const ways = ["1000", "1001", "empty", "1011", "1012", "1013", "cut"];
  const back = await Promise.all(ways.map((how) => comesBack(process.argv[2], how)));
  console.log("stays away after", ways.filter((_, i) => !back[i]).join(" "));
  process.exit(0);
})();
JS
expect "sockette" "$(node codes.cjs sockette)" "stays away after 1000 1001 empty"
expect "rpc-websockets" "$(node codes.cjs rpc-websockets)" "stays away after 1000"

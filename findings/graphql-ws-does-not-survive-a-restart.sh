#!/bin/bash
# graphql-ws retries a connection that was closed, and gives up for good at the first one that is refused.
#
# Guess:  retryAttempts: 50 carries a client of Node over a restart of its server: it comes again until the port is open.
# Really: only CloseEvents are retried by default (shouldRetry). With ws, a refused connection and a handshake that is answered 503 are
#         ErrorEvents: the subscription ends at the first one, with 50 attempts left. A port that is open again at once is found.
# So:     a server that closes with 1012 and is away for half a second loses all of them; one whose port never closes loses none.
#         That is what slots and rolling reloads are for; a refusal by 503 means "never again" here. Clients set shouldRetry: () => true.
# Seen:   graphql-ws 6.4.2 with ws 8.23.0, Node 20.
. "$(dirname "$0")/lib/setup.bash"
npm_install graphql-ws@6.4.2 graphql@16.15.0 ws@8.23.0
cat >restart.cjs <<'JS'
const { WebSocketServer, WebSocket } = require("ws");
const { createServer } = require("http");
const { createClient } = require("graphql-ws");
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let connections = 0, latest, refusing = false;
async function listen(port) {
  const server = createServer();
  const sockets = new WebSocketServer({ noServer: true });
  server.on("upgrade", (request, socket, head) => {
    if (refusing) return socket.end("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    sockets.handleUpgrade(request, socket, head, (ws) => {
      connections += 1;
      latest = ws;
      ws.on("message", (data) => `${data}`.includes("connection_init") && ws.send('{"type":"connection_ack"}'));
    });
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return server;
}
(async () => {
  const [how, retry] = process.argv.slice(2);
  let server = await listen(0), ended = "goes on";
  const port = server.address().port;
  const client = createClient({
    url: `ws://127.0.0.1:${port}/`, webSocketImpl: WebSocket, retryAttempts: 50, retryWait: () => sleep(100),
    ...(retry ? { shouldRetry: () => true } : {}),
  });
  client.subscribe({ query: "subscription { ticks }" }, { next() {}, complete() {}, error() { ended = "ended"; } });
  while (!latest) await sleep(20);
  await sleep(200);
  if (how === "refused") server.close();
  refusing = how === "503";
  latest.close(1012, "restart");
  await sleep(600);
  refusing = false;
  if (how === "refused") server = await listen(port);
  await sleep(1500);
  console.log(`${connections} connections, ${ended}`);
  process.exit(0);
})();
JS
expect "closed with 1012, the port stays open" "$(node restart.cjs open)" "2 connections, goes on"
expect "the port is closed for 0.6 s" "$(node restart.cjs refused)" "1 connections, ended"
expect "handshakes get 503 for 0.6 s" "$(node restart.cjs 503)" "1 connections, ended"
expect "the same with shouldRetry: () => true" "$(node restart.cjs refused yes)" "2 connections, goes on"

// How light an idle server is: node idle_server.mjs PATH/TO/ollama [RUNS]
// Start to first accepted request (median over RUNS starts), resident memory when idle, and with 1,000
// idle keep-alive connections that have each been served once and are each served once more.
import { spawn } from "node:child_process";
import { readFileSync, mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

const [program, runs = "9"] = process.argv.slice(2);
if (!program) {
  console.error("usage: node idle_server.mjs PATH/TO/ollama [RUNS]");
  process.exit(2);
}
const CONNECTIONS = 1000;
const request = "GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n";
const folder = mkdtempSync(path.join(os.tmpdir(), "idle-"));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const resident = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;

function freePort() {
  return new Promise((resolve) => {
    const probe = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

function connect(port) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(socket));
    socket.once("error", reject);
  });
}

function ask(socket) {
  return new Promise((resolve, reject) => {
    let text = "";
    const onData = (data) => {
      text += data;
      if (text.includes("}")) {
        socket.off("data", onData);
        resolve(text);
      }
    };
    socket.on("data", onData);
    socket.once("close", () => reject(new Error("closed by the server")));
    socket.write(request);
  });
}

async function start() {
  const port = await freePort();
  const began = process.hrtime.bigint();
  const server = spawn(program, ["serve"], {
    env: { ...process.env, OLLAMA_HOST: `127.0.0.1:${port}`, OLLAMA_MODELS: path.join(folder, "models"), HOME: folder },
    stdio: "ignore",
  });
  for (let tries = 0; tries < 5000; ++tries) {
    try {
      const socket = await connect(port);
      await ask(socket);
      socket.destroy();
      return { server, port, ms: Number(process.hrtime.bigint() - began) / 1e6 };
    } catch {
      await sleep(1);
    }
  }
  throw new Error("the server does not start");
}

async function stop(server) {
  const ended = new Promise((resolve) => server.once("exit", resolve));
  server.kill("SIGTERM");
  await ended;
}

const starts = [];
for (let run = 0; run < Number(runs); ++run) {
  const { server, ms } = await start();
  starts.push(ms);
  await stop(server);
}
starts.sort((a, b) => a - b);

const { server, port } = await start();
await sleep(1000);
const idle = resident(server.pid);
const sockets = [];
for (let i = 0; i < CONNECTIONS; ++i) sockets.push(await connect(port));
await Promise.all(sockets.map(ask));
await sleep(1000);
const held = resident(server.pid);
await Promise.all(sockets.map(ask));
for (const socket of sockets) socket.destroy();
await stop(server);
rmSync(folder, { recursive: true, force: true });

console.log(JSON.stringify({
  start_ms_median: +starts[Math.floor(starts.length / 2)].toFixed(1),
  start_ms_worst: +starts.at(-1).toFixed(1),
  idle_mib: +idle.toFixed(1),
  connections: CONNECTIONS,
  connections_mib: +held.toFixed(1),
}));

// Three models, two slots, fifty clients at once: node three_models.mjs PATH/TO/ollama [REQUESTS]
// Each client asks REQUESTS times, a model by turns; every request must be answered with that model's
// text or refused as the API says, never more than two models may be loaded, and all of them must have
// had their turn. Each client's last request may wait as long as it takes.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

const [program, requests = "6"] = process.argv.slice(2);
if (!program) {
  console.error("usage: node three_models.mjs PATH/TO/ollama [REQUESTS]");
  process.exit(2);
}
const CLIENTS = 50;
const QUEUE = 32; // fewer than there are clients: some are refused
const busy = "server busy, please try again.  maximum pending requests exceeded";
const data = process.env.TEST_DATA ?? new URL("../data", import.meta.url).pathname;
const folder = mkdtempSync(path.join(os.tmpdir(), "three-"));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function freePort() {
  return new Promise((resolve) => {
    const probe = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

const host = `127.0.0.1:${await freePort()}`;
const environment = {
  ...process.env,
  OLLAMA_HOST: host,
  OLLAMA_MODELS: path.join(folder, "models"),
  OLLAMA_MAX_LOADED_MODELS: "2",
  OLLAMA_NUM_PARALLEL: "2",
  OLLAMA_MAX_QUEUE: String(QUEUE),
  HOME: folder,
};
let log = "";
const server = spawn(program, ["serve"], { env: environment, stdio: ["ignore", "ignore", "pipe"] });
server.stderr.on("data", (text) => (log += text));

async function post(route, body) {
  const response = await fetch(`http://${host}${route}`, { method: "POST", body: JSON.stringify(body) });
  return { status: response.status, json: await response.json() };
}
const question = (model, index) => ({
  model,
  prompt: `Once upon a time ${index % 3}`,
  stream: false,
  options: { temperature: 0, num_predict: 8, seed: 1 },
});

let failure = null;
function check(condition, text) {
  if (!condition && !failure) failure = text;
}

try {
  for (let tries = 0; ; ++tries) {
    try {
      await fetch(`http://${host}/`);
      break;
    } catch (error) {
      if (tries > 500) throw error;
      await sleep(20);
    }
  }
  // Of the same story, but other files, so that they are other models to the scheduler.
  const models = ["stories260k"];
  for (const name of ["f32", "again"]) {
    const file = path.join(folder, `${name}.gguf`);
    execFileSync(program, ["debug", "make-model", "--shape", "tiny", "--type", "f32", "--seed",
      String(name.length), "--out", file], { env: environment, stdio: "pipe" });
    writeFileSync(path.join(folder, "Modelfile"), `FROM ${file}\nTEMPLATE {{ .Prompt }}\nPARAMETER num_ctx 256\n`);
    execFileSync(program, ["create", name, "-f", path.join(folder, "Modelfile")], { env: environment, stdio: "pipe" });
    models.push(name);
  }
  // What each says when nobody else asks.
  const expected = {};
  for (const model of models) {
    for (let i = 0; i < 3; ++i) {
      const { status, json } = await post("/api/generate", question(model, i));
      check(status === 200, `${model}: ${status} ${JSON.stringify(json)}`);
      expected[`${model} ${i}`] = json.response;
    }
  }

  let answered = 0;
  let refused = 0;
  let asked = true;
  let most = 0;
  const watch = (async () => {
    while (asked) {
      const { models: loaded } = await (await fetch(`http://${host}/api/ps`)).json();
      most = Math.max(most, loaded.length);
      await sleep(10);
    }
  })();
  const seen = new Set();
  async function client(index) {
    for (let round = 0; round < Number(requests); ++round) {
      const model = models[(index + round) % models.length];
      const last = round + 1 === Number(requests);
      for (;;) {
        const { status, json } = await post("/api/generate", question(model, index));
        if (status === 503) {
          check(json.error === busy, `refused with: ${JSON.stringify(json)}`);
          ++refused;
          if (!last) break;
          await sleep(50 + 10 * index);
          continue;
        }
        check(status === 200, `${model}: ${status} ${JSON.stringify(json)}`);
        check(json.response === expected[`${model} ${index % 3}`], `${model} said ${json.response}`);
        seen.add(model);
        ++answered;
        break;
      }
    }
  }
  const began = Date.now();
  await Promise.all(Array.from({ length: CLIENTS }, (_, index) => client(index)));
  const seconds = (Date.now() - began) / 1000;
  asked = false;
  await watch;
  check(most <= 2, `${most} models were loaded at once`);
  check(seen.size === models.length, `only ${[...seen]} had a turn`);
  check(answered >= CLIENTS, `${answered} answers`);
  const { status } = await fetch(`http://${host}/`);
  check(status === 200, "the server does not answer any more");
  console.log(JSON.stringify({ clients: CLIENTS, answered, refused, most_loaded: most, seconds }));
} catch (error) {
  failure ??= String(error.stderr ?? error.stack ?? error);
} finally {
  const ended = new Promise((resolve) => server.once("exit", resolve));
  server.kill("SIGTERM");
  const code = await ended;
  if (code !== 0) failure ??= `the server ended with ${code}`;
  if (log.includes("ThreadSanitizer")) failure ??= "the thread sanitizer reports";
  rmSync(folder, { recursive: true, force: true });
}
if (failure) {
  console.error(`FAILED: ${failure}\n${log.split("\n").slice(-30).join("\n")}`);
  process.exit(1);
}

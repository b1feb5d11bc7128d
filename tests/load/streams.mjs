// Two hundred clients that stream from one model: node streams.mjs PATH/TO/ollama [REQUESTS] [PARALLEL,...]
// They ask by /api/chat, /v1/chat/completions and /v1/messages by turns, twenty prompts; each answer must be
// what the prompt gets when nobody else asks, of as many tokens. One client in fifty goes in the middle of its answer.
// With each PARALLEL (8,1) a server of its own gets REQUESTS (2,000), and its memory must not grow once a fifth of
// them is done; then one with a short queue answers a quarter as many, and clients that it refuses ask again.
// Times are reported and not judged.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";

const [program, requests = "2000", parallel = "8,1"] = process.argv.slice(2);
if (!program) {
  console.error("usage: node streams.mjs PATH/TO/ollama [REQUESTS] [PARALLEL,...]");
  process.exit(2);
}
const CLIENTS = 200;
const STALLED_MS = 60_000; // without a byte: a guard, no measure
const busy = "server busy, please try again.  maximum pending requests exceeded";
const model = "stories260k";
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Some share a beginning, and so a cached prefix; none of them asks for as many tokens as its neighbour.
const prompts = [
  "Once upon a time", "Once upon a time there was a dog", "Once upon a time there was a dog named Max", "Lily",
  "Lily and Tom", "Lily saw a big cat", "The sun was", "The sun was hot and the bird", "One day", "One day, a boy",
  "In the park", "Mom said", "Mom said, \"Do not", "Tim had a red ball", "Tim had a red ball. He", "The little fish",
  "She was sad because", "They played all day", "\"Hello,\" said the bear", "A girl went to the house. ".repeat(8),
].map((text, index) => ({ text, tokens: 12 + ((index * 7) % 29) }));

const messages = ({ text }) => [{ role: "user", content: text }];
const native = (prompt, stream) => ({
  model, stream, messages: messages(prompt), options: { temperature: 0, num_predict: prompt.tokens },
});
// How each family asks, and where its pieces have their text, the number of tokens, and the end.
const families = [
  {
    route: "/api/chat",
    body: (prompt) => native(prompt, true),
    text: (piece) => piece.message?.content,
    tokens: (piece) => piece.eval_count,
    ends: (piece) => piece.done,
  },
  {
    route: "/v1/chat/completions",
    body: (prompt) => ({
      model, stream: true, stream_options: { include_usage: true }, messages: messages(prompt), temperature: 0,
      max_tokens: prompt.tokens,
    }),
    text: (piece) => piece.choices?.[0]?.delta?.content,
    tokens: (piece) => piece.usage?.completion_tokens,
    ends: (piece) => piece === "[DONE]",
  },
  {
    route: "/v1/messages",
    body: (prompt) => ({ model, stream: true, messages: messages(prompt), temperature: 0, max_tokens: prompt.tokens }),
    text: (piece) => piece.delta?.text,
    tokens: (piece) => (piece.type === "message_delta" ? piece.usage?.output_tokens : undefined),
    ends: (piece) => piece.type === "message_stop",
  },
];

function freePort() {
  return new Promise((resolve) => {
    const probe = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

// Calls take(line) with each line as it comes; when that is true, or at the end of the answer, resolves to
// the status. One that leaves before the end closes its connection.
function post({ port, agent }, route, body, take) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: "127.0.0.1", port, agent, method: "POST", path: route, timeout: STALLED_MS });
    request.once("timeout", () => request.destroy(new Error(`${route} stalled for ${STALLED_MS} ms`)));
    request.once("error", reject);
    request.once("response", (response) => {
      let rest = "";
      response.setEncoding("utf8");
      response.on("data", (data) => {
        const lines = (rest + data).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          if (!line || !take(line)) continue;
          response.removeAllListeners("data");
          resolve(response.statusCode);
          request.destroy();
          return;
        }
      });
      response.once("error", reject); // after resolve() it does nothing
      response.once("end", () => {
        if (rest) take(rest);
        resolve(response.statusCode);
      });
    });
    request.end(JSON.stringify(body));
  });
}

async function json(server, route, body) {
  let text = "";
  const status = await post(server, route, body, (line) => void (text += line));
  if (status !== 200) throw new Error(`${route}: ${status} ${text}`);
  return JSON.parse(text);
}

// Of the native family's times, in milliseconds and to the microsecond. Days do not matter.
function sent(piece) {
  const [, hours, minutes, seconds] = /T(\d+):(\d+):([\d.]+)/.exec(piece.created_at ?? "") ?? [];
  return hours && ((hours * 60 + Number(minutes)) * 60 + Number(seconds)) * 1000;
}

// One streamed answer: what it says, and the milliseconds between its pieces, as they come here and (of the native
// family) as they are sent. With `leave`, only so many pieces of it.
async function stream(server, family, prompt, leave) {
  const answer = { text: "", pieces: 0, tokens: 0, ended: false, gaps: [], sent: [], first: 0, refused: "" };
  const asked = performance.now();
  let last = 0;
  let last_sent;
  const status = await post(server, family.route, family.body(prompt), (line) => {
    answer.refused = line;
    const data = line.startsWith("data: ") ? line.slice(6) : line;
    if (line.startsWith("event: ")) return false;
    const piece = data === "[DONE]" ? data : JSON.parse(data);
    answer.ended ||= Boolean(family.ends(piece));
    answer.tokens = family.tokens(piece) ?? answer.tokens;
    const text = family.text(piece);
    if (!text) return false;
    const now = performance.now();
    if (last) answer.gaps.push(now - last);
    else answer.first = now - asked;
    last = now;
    const when = sent(piece);
    if (when && last_sent) answer.sent.push(when - last_sent);
    last_sent = when;
    answer.text += text;
    return ++answer.pieces === leave;
  });
  return { ...answer, status };
}

function resident(pid) {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;
}

function isChild(pid, parent) {
  try {
    return Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ")[1]) === parent;
  } catch {
    return false; // it has ended
  }
}

// Of the server, and of its runner.
function memory(pid) {
  const runners = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && isChild(name, pid));
  if (runners.length !== 1) throw new Error(`the server has ${runners.length} runners`);
  return { server: resident(pid), runner: resident(runners[0]) };
}

async function start(folder, variables) {
  const port = await freePort();
  const child = spawn(program, ["serve"], {
    env: {
      ...process.env, OLLAMA_HOST: `127.0.0.1:${port}`, OLLAMA_MODELS: path.join(folder, "models"), HOME: folder,
      ...variables,
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const server = { port, child, log: "", agent: new http.Agent({ keepAlive: true, maxSockets: CLIENTS }) };
  child.stderr.on("data", (text) => (server.log = (server.log + text).slice(-20_000)));
  for (let tries = 0; ; ++tries) {
    try {
      await json(server, "/api/show", { model });
      return server;
    } catch (error) {
      if (tries > 500) throw error;
      await sleep(20);
    }
  }
}

async function stop(server) {
  server.agent.destroy();
  const ended = new Promise((resolve) => server.child.once("exit", resolve));
  server.child.kill("SIGTERM");
  const code = await ended;
  if (code !== 0) throw new Error(`the server ended with ${code}`);
}

function summary(times) {
  const sorted = Float64Array.from(times).sort();
  const at = (share) => +sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))].toFixed(2);
  return { median: at(0.5), p99: at(0.99), worst: at(1) };
}

function compare(family, prompt, answer, expected) {
  const what = `${family.route} ${JSON.stringify(prompt.text)}`;
  if (answer.status !== 200) throw new Error(`${what}: ${answer.status} ${answer.refused}`);
  if (answer.text !== expected.text || answer.tokens !== expected.tokens || !answer.ended) {
    const { text, tokens, ended } = answer;
    throw new Error(`${what} said ${JSON.stringify({ text, tokens, ended })}, alone ${JSON.stringify(expected)}`);
  }
}

// CLIENTS at once, until `count` requests are done. `sample` is called after every twentieth part of them.
async function load(server, count, expected, sample) {
  const seen = { answered: 0, left: 0, refused: 0, tokens: 0, gaps: [], sent: [], firsts: [] };
  let next = 0;
  let stopped = false;
  function record(answer) {
    ++seen.answered;
    seen.tokens += answer.tokens;
    seen.firsts.push(answer.first);
    for (const gap of answer.gaps) seen.gaps.push(gap);
    for (const gap of answer.sent) seen.sent.push(gap);
  }
  async function ask(index) {
    const family = families[index % families.length];
    const which = Math.floor(index / families.length) % prompts.length;
    const leave = index % 50 === 49 ? 3 : 0;
    for (let tries = 0; !stopped; ++tries) {
      const answer = await stream(server, family, prompts[which], leave);
      if (answer.status === 503) {
        const { error } = JSON.parse(answer.refused);
        if ((error.message ?? error) !== busy) throw new Error(`refused with: ${answer.refused}`);
        ++seen.refused;
        await sleep(Math.min(20 * (tries + 1), 500));
        continue;
      }
      if (leave) {
        ++seen.left;
      } else {
        compare(family, prompts[which], answer, expected[which]);
        record(answer);
      }
      const done = seen.answered + seen.left;
      if (done % Math.ceil(count / 20) === 0 || done === count) sample(done);
      return;
    }
  }
  async function client() {
    try {
      while (!stopped && next < count) await ask(next++);
    } catch (error) {
      stopped = true; // the others end with what they are at
      throw error;
    }
  }
  const began = performance.now();
  await Promise.all(Array.from({ length: CLIENTS }, client));
  const seconds = (performance.now() - began) / 1000;
  return {
    answered: seen.answered, left: seen.left, refused: seen.refused, seconds: +seconds.toFixed(1),
    tokens_a_second: Math.round(seen.tokens / seconds),
    ms_between_tokens: summary(seen.gaps), ms_between_tokens_sent: summary(seen.sent),
    ms_to_first_token: summary(seen.firsts),
  };
}

function checkMemory(samples) {
  const [first, last] = [samples[0], samples.at(-1)];
  for (const what of ["server", "runner"]) {
    if (last[what] > first[what] * 1.1 + 16) {
      throw new Error(`the ${what} grew from ${first[what]} to ${last[what]} MiB: ${JSON.stringify(samples)}`);
    }
  }
}

async function round(folder, count, variables) {
  const server = await start(folder, variables);
  try {
    const expected = [];
    for (const prompt of prompts) {
      const { message, eval_count: tokens } = await json(server, "/api/chat", native(prompt, false));
      expected.push({ text: message.content, tokens });
    }
    const samples = [];
    const figures = await load(server, count, expected, (done) => {
      if (done >= count / 5) samples.push({ done, ...memory(server.child.pid) });
    });
    checkMemory(samples);
    const brief = [samples[0], samples[Math.floor(samples.length / 2)], samples.at(-1)];
    console.log(JSON.stringify({
      ...variables, clients: CLIENTS, ...figures,
      server_and_runner_mib: brief.map((s) => `${s.done}: ${s.server.toFixed(1)} + ${s.runner.toFixed(1)}`),
    }));
  } catch (error) {
    error.log = server.log;
    server.child.kill("SIGKILL");
    throw error;
  }
  await stop(server);
}

const folder = mkdtempSync(path.join(os.tmpdir(), "streams-"));
let failure = null;
try {
  const count = Number(requests);
  for (const slots of parallel.split(",")) await round(folder, count, { OLLAMA_NUM_PARALLEL: slots });
  await round(folder, Math.ceil(count / 4), { OLLAMA_NUM_PARALLEL: "4", OLLAMA_MAX_QUEUE: "64" });
} catch (error) {
  failure = error;
}
rmSync(folder, { recursive: true, force: true });
if (failure) {
  console.error(`FAILED: ${failure.stack}\n${(failure.log ?? "").split("\n").slice(-30).join("\n")}`);
  process.exit(1);
}

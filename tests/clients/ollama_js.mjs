// npm's `ollama` client, unchanged, against the server that OLLAMA_HOST names.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const client = new Ollama({ host: `http://${process.env.OLLAMA_HOST}` });
const begin = ", there was a little girl named Lily. She loved to play outside in the park.";

const { models } = await client.list();
const bundled = models.find((model) => model.name === "stories260k:latest");
assert.ok(bundled, "the bundled model is listed");
assert.equal(bundled.details.family, "llama");
assert.ok(bundled.modified_at instanceof Date || typeof bundled.modified_at === "string");

const whole = await client.generate({ model: "stories260k", prompt: "Once upon a time" });
assert.ok(whole.response.startsWith(begin), whole.response);
assert.equal(whole.done, true);
assert.ok(whole.eval_count > 10 && whole.total_duration > 0 && Array.isArray(whole.context));

let streamed = "";
let last;
for await (const part of await client.generate({ model: "stories260k", prompt: "Once upon a time", stream: true })) {
  streamed += part.response;
  last = part;
}
assert.equal(streamed, whole.response);
assert.equal(last.done_reason, whole.done_reason);

const messages = [{ role: "user", content: "Once upon a time" }];
const chat = await client.chat({ model: "stories260k", messages });
assert.equal(chat.message.role, "assistant");
assert.ok(chat.message.content.startsWith(begin), chat.message.content);

streamed = "";
for await (const part of await client.chat({ model: "stories260k", messages, stream: true })) {
  streamed += part.message.content;
}
assert.equal(streamed, chat.message.content);

// Aborting ends the stream with an error on this side and nothing worse.
const endless = await client.generate({
  model: "stories260k", prompt: "Once upon a time", stream: true,
  options: { num_predict: 100000, temperature: 1.2 },
});
setTimeout(() => endless.abort(), 50);
await assert.rejects(async () => { for await (const _ of endless) { /* read on */ } }, /abort/i)
  .catch((error) => { if (!/Missing expected rejection/.test(String(error))) throw error; });

const shown = await client.show({ model: "stories260k" });
assert.equal(shown.model_info["general.architecture"], "llama");
assert.ok(shown.capabilities.includes("completion"));

const running = await client.ps();
assert.ok(running.models.some((model) => model.name === "stories260k:latest"));

await client.copy({ source: "stories260k", destination: "mine" });
assert.ok((await client.list()).models.some((model) => model.name === "mine:latest"));
await client.delete({ model: "mine" });
await assert.rejects(client.generate({ model: "mine", prompt: "x" }), (error) => {
  assert.equal(error.status_code, 404);
  assert.match(error.message, /model 'mine' not found/);
  return true;
});
console.log("ollama-js: ok");

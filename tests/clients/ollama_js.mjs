// npm's `ollama` client, unchanged, against the server that OLLAMA_HOST names.
import assert from "node:assert/strict";
import { Ollama } from "ollama";
import { abortEndless, answerTo, assertSame, families, resultOf, scriptedThought, scripts, weatherTool } from "./common.mjs";

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

const greedy = { options: { temperature: 0 } };
const first = (await client.generate({ ...greedy, model: "stories260k", prompt: "Once upon a time" })).response;
assert.equal((await client.chat({ ...greedy, model: "stories260k", messages })).message.content, first);

// Structured output, and a tool that is called, answered, and the conversation goes on.
const schema = {
  type: "object",
  properties: { city: { enum: ["Paris", "Rome"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["city", "days"],
  additionalProperties: false,
};
const isWeather = (value) => ["Paris", "Rome"].includes(value.city) && value.days >= 1 && value.days <= 9;
const limited = { options: { temperature: 0, num_predict: 500 } };
const formatted = await client.chat({ ...limited, model: "stories260k", messages, format: schema });
assert.equal(formatted.done_reason, "stop");
assert.ok(isWeather(JSON.parse(formatted.message.content)));

const tools = [{ type: "function", function: { name: "weather", description: "tells the weather", parameters: schema } }];
const asking = { ...limited, model: "tools", tools, tool_choice: "required" };
const called = await client.chat({ ...asking, messages });
const [call] = called.message.tool_calls;
assert.equal(call.function.name, "weather");
assert.ok(isWeather(call.function.arguments));
const calls = [];
for await (const part of await client.chat({ ...asking, messages, stream: true })) {
  calls.push(...(part.message.tool_calls ?? []));
}
assert.deepEqual(calls.map((one) => one.function.arguments), [call.function.arguments]);
const answered = await client.chat({
  ...asking, tool_choice: "none", messages: [...messages, called.message, { role: "tool", tool_name: "weather", content: "sunny" }],
});
assert.equal(answered.message.tool_calls, undefined);
await assert.rejects(client.chat({ ...asking, model: "stories260k", messages }), /does not support tools/);

const thought = await client.chat({ model: "thinker", messages, think: true, options: { temperature: 0, num_predict: 20 } });
assert.ok(thought.message.thinking.length > 10);
assert.equal(thought.message.content, "");

// Thoughts, text and calls of a model that says them word for word, whole and streamed, in each family's
// way to write them; and its answer to what the calls brought.
const scriptedTools = [{ type: "function", function: weatherTool }];
for (const family of Object.keys(families)) {
  for (const think of [true, false, undefined]) {
    const at = `${family}, think ${think}`;
    const converse = async (conversation, offered) => {
      const request = { model: `scripted-${family}`, messages: conversation, tools: offered, think, options: { temperature: 2 } };
      const { message: said, done_reason } = await client.chat(request);
      assert.equal(done_reason, "stop", at);
      const live = { role: "assistant", content: "", thinking: "", tool_calls: [] };
      const order = [];
      for await (const { message: part } of await client.chat({ ...request, stream: true })) {
        for (const kind of ["thinking", "content", "tool_calls"]) if (part[kind]?.length && order.at(-1) !== kind) order.push(kind);
        live.content += part.content;
        live.thinking += part.thinking ?? "";
        live.tool_calls.push(...(part.tool_calls ?? []));
      }
      assert.deepEqual(order, ["thinking", "content", "tool_calls"].filter((kind) => live[kind].length), at);
      assert.equal(live.content, said.content, at);
      assert.equal(live.thinking, said.thinking ?? "", at);
      assertSame(live.tool_calls.map((one) => one.function), (said.tool_calls ?? []).map((one) => one.function), at);
      assert.equal(said.thinking, think === false ? undefined : scriptedThought, at);
      return said;
    };
    for (const [said, { calls: expected = [], then }] of Object.entries(scripts)) {
      const begun = [{ role: "user", content: said }];
      const answer = await converse(begun, scriptedTools);
      assert.equal(answer.content.trim(), answerTo(family, said), at);
      assertSame((answer.tool_calls ?? []).map((one) => one.function.arguments), expected, at);
      if (expected.length === 0) continue;
      assert.ok(answer.tool_calls.every((one) => one.function.name === "weather"), at);
      const results = answer.tool_calls.map(({ function: { name, arguments: given } }) =>
        ({ role: "tool", tool_name: name, content: resultOf(given) }));
      const concluded = await converse([...begun, answer, ...results], scriptedTools);
      assert.equal(concluded.content, (think === false ? "" : "As I thought: ") + then, at);
      assert.equal(concluded.tool_calls, undefined, at);
    }
    assert.equal((await converse([{ role: "user", content: "greet" }])).content, answerTo(family, "greet"), at);
  }
}

const { embeddings } = await client.embed({ model: "bert", input: ["a cat", "a dog"] });
assert.equal(embeddings.length, 2);
const [alone] = (await client.embed({ model: "bert", input: "a dog" })).embeddings;
alone.forEach((value, i) => assert.ok(Math.abs(value - embeddings[1][i]) < 1e-6));

await abortEndless(async (signal) => {
  const endless = await client.generate({
    model: "endless", prompt: "Once upon a time", stream: true, options: { num_predict: 10_000_000, temperature: 0 },
  });
  signal.addEventListener("abort", () => endless.abort());
  return endless;
});

const shown = await client.show({ model: "stories260k" });
assert.equal(shown.model_info["general.architecture"], "llama");
assert.ok(shown.capabilities.includes("completion"));

const running = await client.ps();
assert.ok(running.models.some((model) => model.name === "endless:latest"));

await client.copy({ source: "stories260k", destination: "mine" });
assert.ok((await client.list()).models.some((model) => model.name === "mine:latest"));
await client.delete({ model: "mine" });
await assert.rejects(client.generate({ model: "mine", prompt: "x" }), (error) => {
  assert.equal(error.status_code, 404);
  assert.match(error.message, /model 'mine' not found/);
  return true;
});
console.log("ollama-js: ok");

// npm's `@anthropic-ai/sdk`, unchanged, against the server that OLLAMA_HOST names.
import assert from "node:assert/strict";
import Anthropic, { AuthenticationError, BadRequestError, NotFoundError } from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";
import { abortEndless, host, key, prompt, toldNatively } from "./common.mjs";

const baseURL = host;
const client = new Anthropic({ baseURL, apiKey: key ?? "any", maxRetries: 0 });
const messages = [{ role: "user", content: prompt }];
const greedy = { model: "stories260k", temperature: 0, max_tokens: 256, messages };

if (key) {
  await client.messages.create({ ...greedy, max_tokens: 2 });
  const bearer = new Anthropic({ baseURL, apiKey: null, authToken: key, maxRetries: 0 });
  await bearer.messages.create({ ...greedy, max_tokens: 2 });
  const stranger = new Anthropic({ baseURL, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.messages.create(greedy), (error) => {
    assert.ok(error instanceof AuthenticationError);
    assert.equal(error.error.type, "error");
    assert.equal(error.error.error.type, "authentication_error");
    return true;
  });
  console.log("anthropic, with a key: ok");
  process.exit(0);
}

// ---- The same text as from the other interfaces, streamed and not

const story = await toldNatively();

const message = await client.messages.create(greedy);
assert.equal(message.type, "message");
assert.equal(message.role, "assistant");
assert.deepEqual(message.content, [{ type: "text", text: story }]);
assert.equal(message.stop_reason, "max_tokens");
assert.equal(message.usage.output_tokens, 256);

let text = "";
const kinds = [];
for await (const event of await client.messages.create({ ...greedy, stream: true })) {
  kinds.push(event.type);
  if (event.type === "content_block_delta") text += event.delta.text;
}
assert.equal(text, story);
assert.deepEqual(kinds.filter((kind, i) => kind !== kinds[i - 1]), [
  "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
]);

text = "";
const stream = client.messages.stream(greedy).on("text", (delta) => { text += delta; });
const accumulated = await stream.finalMessage();
assert.equal(text, story);
assert.deepEqual(accumulated.content, message.content);
assert.equal(accumulated.stop_reason, "max_tokens");
assert.equal(accumulated.usage.output_tokens, 256);
assert.equal((await client.messages.create({ ...greedy, max_tokens: 1000 })).stop_reason, "end_turn");

const blocks = await client.messages.create({
  ...greedy, max_tokens: 10, messages: [{ role: "user", content: [{ type: "text", text: prompt }] }],
});
assert.ok(story.startsWith(blocks.content[0].text));
const stopped = await client.messages.create({ ...greedy, stop_sequences: [" Lily"] });
assert.equal(stopped.content[0].text, ", there was a little girl named");
assert.deepEqual([stopped.stop_reason, stopped.stop_sequence], ["stop_sequence", " Lily"]);
const stream_stopped = await client.messages.stream({ ...greedy, stop_sequences: ["park", " Lily"] }).finalMessage();
assert.deepEqual([stream_stopped.stop_reason, stream_stopped.stop_sequence], ["stop_sequence", " Lily"]);

// ---- Tokens: as many as the answer says

const counted = await client.messages.countTokens({ model: "stories260k", messages });
assert.equal(counted.input_tokens, 5);
const longer = await client.messages.countTokens({ model: "stories260k", messages, system: "Tell of a dog." });
assert.ok(longer.input_tokens > counted.input_tokens);

// ---- Thinking

const thinking = { ...greedy, model: "thinker", max_tokens: 20, thinking: { type: "enabled", budget_tokens: 1024 } };
const thought = await client.messages.create(thinking);
assert.equal(thought.content[0].type, "thinking");
assert.ok(thought.content[0].thinking.length > 10);
const thoughtLive = await client.messages.stream(thinking).finalMessage();
assert.deepEqual(thoughtLive.content, thought.content.filter((block) => block.type === "thinking"));
const unthought = await client.messages.create({ ...thinking, thinking: { type: "disabled" } });
assert.ok(story.startsWith(unthought.content[0].text));

// ---- Structured output

const Weather = z.object({ city: z.enum(["Paris", "Rome"]), sunny: z.boolean() });
const parsed = await client.messages.parse({ ...greedy, max_tokens: 500, output_config: { format: zodOutputFormat(Weather) } });
assert.equal(parsed.stop_reason, "end_turn");
assert.ok(Weather.safeParse(parsed.parsed_output).success);

// ---- Tools: called, answered, and the conversation goes on

const tool = {
  name: "weather", description: "tells the weather",
  input_schema: {
    type: "object",
    properties: { city: { enum: ["Paris", "Rome"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
    required: ["city", "days"],
    additionalProperties: false,
  },
};
const asking = { ...greedy, model: "tools", max_tokens: 500, tools: [tool] };
for (const tool_choice of [{ type: "any" }, { type: "tool", name: "weather" }]) {
  const called = await client.messages.create({ ...asking, tool_choice });
  assert.equal(called.stop_reason, "tool_use");
  const use = called.content.find((block) => block.type === "tool_use");
  assert.equal(use.name, "weather");
  assert.ok(["Paris", "Rome"].includes(use.input.city) && Number.isInteger(use.input.days));

  const partial = [];
  const calledLive = await client.messages.stream({ ...asking, tool_choice })
    .on("inputJson", (json) => partial.push(json)).finalMessage();
  assert.deepEqual(calledLive.content.find((block) => block.type === "tool_use").input, use.input);
  assert.deepEqual(JSON.parse(partial.join("")), use.input);

  const answered = await client.messages.create({
    ...asking, max_tokens: 20, tool_choice: { type: "none" },
    messages: [
      ...messages, { role: "assistant", content: called.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "sunny" }] },
    ],
  });
  assert.ok(answered.content.every((block) => block.type === "text"));
}

// The client's own loop. It asks the server to keep the conversation, and sends the whole of it when
// told that there is no such thing.
const asked = [];
const weather = betaZodTool({ name: "weather", description: "", inputSchema: Weather, run: (input) => { asked.push(input); return "sunny"; } });
await client.beta.messages.toolRunner({ ...asking, tools: [weather], tool_choice: { type: "any" }, max_iterations: 2 });
assert.deepEqual(asked.map((input) => Weather.safeParse(input).success), [true, true]);

// ---- Errors, and an answer that nobody waits for

await assert.rejects(client.messages.create({ ...greedy, model: "missing" }), (error) => {
  assert.ok(error instanceof NotFoundError);
  assert.equal(error.error.error.type, "not_found_error");
  assert.match(error.message, /model 'missing' not found/);
  return true;
});
await assert.rejects(client.messages.create({ ...greedy, max_tokens: 0 }), BadRequestError);
await assert.rejects(client.messages.create({ ...greedy, messages: [] }), BadRequestError);
await assert.rejects(client.messages.countTokens({ model: "stories260k", messages: [] }), BadRequestError);
await assert.rejects(client.messages.create({ ...greedy, tools: [tool] }), BadRequestError);
await assert.rejects(client.messages.create({ ...asking, tool_choice: { type: "tool", name: "other" } }), BadRequestError);
await assert.rejects(client.messages.create({ ...greedy, messages: [{ role: "robot", content: "x" }] }), BadRequestError);

await abortEndless((signal) => client.messages.create(
  { ...greedy, model: "endless", max_tokens: 10_000_000, stream: true }, { signal }));
console.log("anthropic: ok");

// npm's `@anthropic-ai/sdk`, unchanged, against the server that OLLAMA_HOST names.
import assert from "node:assert/strict";
import Anthropic, { AuthenticationError, BadRequestError, NotFoundError } from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";
import {
  abortEndless, answerTo, assertSame, families, host, key, prompt, resultOf, scriptedThought, scripts, toldNatively, weatherTool,
} from "./common.mjs";

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
assert.deepEqual(message.content, [{ type: "text", text: story, citations: null }]);
assert.equal(message.stop_reason, "max_tokens");
assert.equal(message.usage.output_tokens, 256);

let text = "";
const kinds = [];
for await (const event of await client.messages.create({ ...greedy, stream: true })) {
  kinds.push(event.type);
  if (event.type === "message_start") {
    const { input_tokens, cache_read_input_tokens } = event.message.usage;
    assert.equal(input_tokens + cache_read_input_tokens, 5, "the prompt's tokens are told at once");
  }
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

await assert.rejects(client.messages.create({ ...greedy, messages: [...messages, { role: "robot", content: "x" }] }), (error) => {
  assert.ok(error instanceof BadRequestError);
  assert.match(error.error.error.message, /messages\[1\]\.role must be user or assistant, not "robot"/);
  return true;
});
await assert.rejects(client.messages.create({ ...greedy, thinking: { type: "on" } }), /enabled, disabled or adaptive/);

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

// ---- A model that says thoughts, text and calls word for word, in each family's way to write them;
// and its answer to what the calls brought

const { name, description, parameters: input_schema } = weatherTool;
const scriptedTools = [{ name, description, input_schema }];
const withoutIds = (content) => content.map(({ id, signature, ...block }) => block);
for (const family of Object.keys(families)) {
  for (const enabled of [true, false]) {
    const at = `${family}, thinking ${enabled}`;
    const converse = async (conversation, tools) => {
      const request = {
        model: `scripted-${family}`, max_tokens: 1000, messages: conversation, tools,
        thinking: enabled ? { type: "enabled", budget_tokens: 1024 } : { type: "disabled" },
      };
      const whole = await client.messages.create(request);
      const uses = whole.content.filter(({ type }) => type === "tool_use");
      assert.equal(whole.stop_reason, uses.length > 0 ? "tool_use" : "end_turn", at);

      // By hand: blocks begin and end one after another, and their pieces belong to them.
      const blocks = [];
      let open = false;
      let ending;
      for await (const event of await client.messages.create({ ...request, stream: true })) {
        if (event.type === "content_block_start") {
          assert.ok(!open && event.index === blocks.length, at);
          open = true;
          blocks.push({ ...event.content_block, json: "" });
        } else if (event.type === "content_block_delta") {
          assert.ok(open && event.index === blocks.length - 1, at);
          const block = blocks.at(-1);
          if (event.delta.type === "text_delta") block.text += event.delta.text;
          if (event.delta.type === "thinking_delta") block.thinking += event.delta.thinking;
          if (event.delta.type === "input_json_delta") block.json += event.delta.partial_json;
        } else if (event.type === "content_block_stop") {
          assert.ok(open && event.index === blocks.length - 1, at);
          open = false;
        } else if (event.type === "message_delta") {
          ending = event.delta.stop_reason;
        }
      }
      assert.equal(ending, whole.stop_reason, at);
      for (const block of blocks) if (block.type === "tool_use") block.input = JSON.parse(block.json);
      assertSame(withoutIds(blocks).map(({ json, ...block }) => block), withoutIds(whole.content), at);

      const final = await client.messages.stream(request).finalMessage();
      assert.equal(final.stop_reason, whole.stop_reason, at);
      assert.deepEqual(withoutIds(final.content), withoutIds(whole.content), at);
      const thoughts = whole.content.filter(({ type }) => type === "thinking").map(({ thinking }) => thinking);
      assert.deepEqual(thoughts, enabled ? [scriptedThought] : [], at);
      return whole;
    };
    const textOf = ({ content }) => content.filter(({ type }) => type === "text").map(({ text }) => text).join("");
    for (const [said, { text = "", calls: expected = [], then }] of Object.entries(scripts)) {
      const begun = [{ role: "user", content: said }];
      const answer = await converse(begun, scriptedTools);
      assert.equal(textOf(answer).trim(), answerTo(family, said), at);
      const uses = answer.content.filter(({ type }) => type === "tool_use");
      assertSame(uses.map((use) => [use.name, use.input]), expected.map((args) => ["weather", args]), at);
      assert.deepEqual(answer.content.map(({ type }) => type), [
        ...(enabled ? ["thinking"] : []), ...(text || expected.length === 0 ? ["text"] : []), ...expected.map(() => "tool_use"),
      ], at);
      if (expected.length === 0) continue;
      const results = uses.map(({ id, input }) => ({ type: "tool_result", tool_use_id: id, content: resultOf(input) }));
      const concluded = await converse([...begun, { role: "assistant", content: answer.content }, { role: "user", content: results }], scriptedTools);
      assert.equal(textOf(concluded), (enabled ? "As I thought: " : "") + then, at);
    }
    assert.equal(textOf(await converse([{ role: "user", content: "greet" }])), answerTo(family, "greet"), at);
  }
}

// The client's own loop.
for (const stream of [false, true]) {
  const given = [];
  const acting = client.beta.messages.toolRunner({
    model: "scripted-hermes", max_tokens: 1000, messages: [{ role: "user", content: "call two" }], stream, thinking: { type: "disabled" },
    tools: [betaZodTool({
      name, description, inputSchema: z.object({ city: z.string(), days: z.int() }), run: (input) => { given.push(input); return resultOf(input); },
    })],
  });
  const last = await acting.runUntilDone();
  assert.deepEqual(last.content.map(({ text }) => text), [scripts["call two"].then]);
  assert.deepEqual(given, scripts["call two"].calls);
}

// One call at most, of a model that makes two.
const lonely = await client.messages.create({
  model: "scripted-hermes", max_tokens: 1000, messages: [{ role: "user", content: "call two" }], tools: scriptedTools,
  tool_choice: { type: "auto", disable_parallel_tool_use: true },
});
assertSame(lonely.content.filter(({ type }) => type === "tool_use").map(({ input }) => input), scripts["call two"].calls.slice(0, 1));

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

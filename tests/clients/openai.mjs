// npm's `openai` client, unchanged, against the server that OLLAMA_HOST names.
import assert from "node:assert/strict";
import OpenAI, { AuthenticationError, BadRequestError, NotFoundError } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import {
  Contact, abortEndless, answerTo, assertSame, families, host, key, prompt, resultOf, scriptedThought, scripts, toldNatively, weatherTool,
} from "./common.mjs";

const baseURL = `${host}/v1`;
const client = new OpenAI({ baseURL, apiKey: key ?? "any", maxRetries: 0 });
const greedy = { model: "stories260k", temperature: 0 };
const messages = [{ role: "user", content: prompt }];

if (key) {
  await client.models.list();
  const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), AuthenticationError);
  await assert.rejects(stranger.chat.completions.create({ ...greedy, messages, stream: true }), AuthenticationError);
  console.log("openai, with a key: ok");
  process.exit(0);
}

// ---- Models

const ids = [];
for await (const model of client.models.list()) ids.push(model.id);
assert.ok(ids.includes("stories260k:latest"), ids);
const model = await client.models.retrieve("stories260k");
assert.equal(model.object, "model");
assert.equal(model.owned_by, "library");
assert.ok(Number.isInteger(model.created));

// ---- The same text from every interface, streamed and not

const story = await toldNatively();

const chat = await client.chat.completions.create({ ...greedy, messages });
assert.equal(chat.object, "chat.completion");
assert.equal(chat.choices[0].message.role, "assistant");
assert.equal(chat.choices[0].message.content, story);
assert.equal(chat.choices[0].finish_reason, "length");
assert.equal(chat.usage.total_tokens, chat.usage.prompt_tokens + chat.usage.completion_tokens);

let text = "";
let usage;
const finishes = [];
const ticking = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ ...greedy, messages, ...ticking })) {
  assert.equal(chunk.object, "chat.completion.chunk");
  if (chunk.usage) usage = chunk.usage;
  const [choice] = chunk.choices;
  text += choice?.delta.content ?? "";
  if (choice?.finish_reason) finishes.push(choice.finish_reason);
}
assert.equal(text, story);
assert.deepEqual(finishes, ["length"]);
assert.equal(usage.completion_tokens, chat.usage.completion_tokens);

const accumulated = await client.chat.completions.stream({ ...greedy, messages, max_tokens: 1000 }).finalChatCompletion();
assert.ok(accumulated.choices[0].message.content.startsWith(story));
assert.equal(accumulated.choices[0].finish_reason, "stop");

const completion = await client.completions.create({ ...greedy, prompt });
assert.equal(completion.choices[0].text, story);
text = "";
for await (const chunk of await client.completions.create({ ...greedy, prompt, stream: true })) {
  text += chunk.choices[0]?.text ?? "";
}
assert.equal(text, story);
const echoed = await client.completions.create({ ...greedy, prompt: [prompt, prompt], echo: true, max_tokens: 8 });
assert.deepEqual(echoed.choices.map((choice) => choice.index), [0, 1]);
for (const choice of echoed.choices) assert.ok(choice.text.startsWith(`${prompt}, there was`), choice.text);

const response = await client.responses.create({ ...greedy, input: prompt });
assert.equal(response.output_text, story);
assert.equal(response.status, "incomplete");
assert.equal(response.incomplete_details.reason, "max_output_tokens");
const kinds = [];
text = "";
const events = client.responses.stream({ ...greedy, input: prompt });
for await (const event of events) {
  assert.equal(event.sequence_number, kinds.length);
  kinds.push(event.type);
  if (event.type === "response.output_text.delta") text += event.delta;
}
assert.equal(text, story);
assert.equal((await events.finalResponse()).output_text, story);
assert.deepEqual(kinds.filter((kind, i) => kind !== kinds[i - 1]), [
  "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
  "response.output_text.delta", "response.output_text.done", "response.content_part.done",
  "response.output_item.done", "response.incomplete",
]);

// ---- Sampling, limits and stops

const short = await client.chat.completions.create({ ...greedy, messages, max_completion_tokens: 4, n: 2 });
assert.equal(short.choices.length, 2);
assert.equal(short.choices[0].message.content, short.choices[1].message.content);
const stopped = await client.chat.completions.create({ ...greedy, messages, stop: [" Lily"] });
assert.equal(stopped.choices[0].message.content, ", there was a little girl named");
assert.equal(stopped.choices[0].finish_reason, "stop");
const seeded = () => client.chat.completions.create({ model: "stories260k", messages, seed: 7, max_tokens: 30 });
assert.equal((await seeded()).choices[0].message.content, (await seeded()).choices[0].message.content);

// ---- Thinking

const thought = await client.chat.completions.create({
  model: "thinker", messages, temperature: 0, max_tokens: 20, reasoning_effort: "low",
});
assert.equal(thought.choices[0].message.content, "");
assert.ok(thought.choices[0].message.reasoning.length > 10);
assert.equal(thought.usage.completion_tokens_details.reasoning_tokens, thought.usage.completion_tokens);
const unthought = await client.chat.completions.create({
  model: "thinker", messages, temperature: 0, max_tokens: 20, reasoning_effort: "none",
});
assert.ok(story.startsWith(unthought.choices[0].message.content));
assert.equal(unthought.usage.completion_tokens_details.reasoning_tokens, 0);
const pondered = await client.responses
  .stream({
    model: "thinker", input: prompt, temperature: 0, max_output_tokens: 20, reasoning: { effort: "low" },
    include: ["reasoning.encrypted_content"],
  })
  .finalResponse();
assert.equal(pondered.output[0].type, "reasoning");
assert.ok(pondered.output[0].encrypted_content);
assert.equal(pondered.output[0].summary[0].text, thought.choices[0].message.reasoning);
assert.equal(pondered.usage.output_tokens_details.reasoning_tokens, pondered.usage.output_tokens);

// ---- Structured output

// A call ends an answer that was to keep to a format: nothing is made up behind it.
if (process.env.SCRIPTED) {
  const called = await client.chat.completions.create({
    model: "scripted-harmony", messages: [{ role: "user", content: "call one" }],
    tools: [{ type: "function", function: weatherTool }],
    response_format: { type: "json_schema", json_schema: { name: "a", schema: { type: "object", properties: { a: { type: "integer" } } } } },
  });
  assert.equal(called.choices[0].finish_reason, "tool_calls");
  assert.equal(called.choices[0].message.tool_calls.length, 1);
  assert.equal(called.choices[0].message.content ?? "", "");
}

const Weather = z.object({ city: z.enum(["Paris", "Rome"]), days: z.int().min(1).max(9) });
const parsed = await client.chat.completions.parse({
  ...greedy, messages, max_tokens: 500, response_format: zodResponseFormat(Weather, "weather"),
});
assert.equal(parsed.choices[0].finish_reason, "stop");
assert.ok(Weather.safeParse(parsed.choices[0].message.parsed).success);
const formatted = await client.responses.parse({
  ...greedy, input: prompt, max_output_tokens: 500, text: { format: zodTextFormat(Weather, "weather") },
});
assert.equal(formatted.status, "completed");
assert.deepEqual(formatted.output_parsed, parsed.choices[0].message.parsed);
const contact = await client.chat.completions.parse({
  ...greedy, messages, max_tokens: 500, response_format: zodResponseFormat(Contact, "contact"),
});
assert.equal(contact.choices[0].finish_reason, "stop");
assert.ok(Contact.safeParse(contact.choices[0].message.parsed).success);
const free = await client.chat.completions.create({
  ...greedy, messages, max_tokens: 2000, response_format: { type: "json_object" },
});
if (free.choices[0].finish_reason === "stop") JSON.parse(free.choices[0].message.content);

// ---- Tools: called, answered, and the conversation goes on

const parameters = {
  type: "object",
  properties: { city: { enum: ["Paris", "Rome"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["city", "days"],
  additionalProperties: false,
};
const tool = { type: "function", function: { name: "weather", description: "tells the weather", parameters } };
const asking = { model: "tools", messages, temperature: 0, max_tokens: 500, tools: [tool], tool_choice: "required" };
const called = (await client.chat.completions.create(asking)).choices[0];
assert.equal(called.finish_reason, "tool_calls");
const [call] = called.message.tool_calls;
assert.equal(call.function.name, "weather");
assert.ok(Weather.safeParse(JSON.parse(call.function.arguments)).success, call.function.arguments);

const calledLive = (await client.chat.completions.stream(asking).finalChatCompletion()).choices[0];
assert.equal(calledLive.finish_reason, "tool_calls");
assert.equal(calledLive.message.tool_calls.length, 1);
assert.deepEqual(calledLive.message.tool_calls[0].function.arguments, call.function.arguments);

const answered = await client.chat.completions.create({
  model: "tools", temperature: 0, max_tokens: 20, tools: [tool], tool_choice: "none",
  messages: [...messages, called.message, { role: "tool", tool_call_id: call.id, content: "sunny" }],
});
assert.equal(answered.choices[0].message.role, "assistant");
assert.equal(answered.choices[0].message.tool_calls, undefined);

// The client's own loop. A forced choice is forced each time, so that the second turn must end it.
const asked = [];
const runner = client.chat.completions.runTools({
  ...asking, tool_choice: { type: "function", function: { name: "weather" } },
  tools: [{ type: "function", function: {
    name: "weather", parameters, parse: JSON.parse,
    function: (args) => { asked.push(args); return "sunny"; },
  } }],
});
await runner.done();
assert.equal(asked.length, 1);
assert.ok(Weather.safeParse(asked[0]).success);

const { name, description } = tool.function;
const flat = { type: "function", name, description, parameters, strict: true };
const acting = await client.responses
  .stream({ model: "tools", input: prompt, temperature: 0, max_output_tokens: 500, tools: [flat], tool_choice: "required" })
  .finalResponse();
assert.deepEqual([acting.tools, acting.tool_choice, acting.temperature, acting.instructions], [[flat], "required", 0, null]);
const action = acting.output.find((item) => item.type === "function_call");
assert.equal(action.name, "weather");
assert.ok(Weather.safeParse(JSON.parse(action.arguments)).success);
const concluded = await client.responses.create({
  model: "tools", temperature: 0, max_output_tokens: 20, tools: [flat], tool_choice: "auto",
  input: [
    { role: "user", content: prompt }, ...acting.output,
    { type: "function_call_output", call_id: action.call_id, output: "sunny" },
  ],
});
assert.ok(concluded.output.length > 0);

// ---- A model that says thoughts, text and calls word for word, in each family's way to write them;
// and its answer to what the calls brought

const scriptedTools = [{ type: "function", function: weatherTool }];
const scriptedCalls = (message) => (message.tool_calls ?? []).map((one) => ({ ...one.function, type: one.type }));
const written = (calls) => calls.map((args) => ({ name: "weather", arguments: JSON.stringify(args), type: "function" }));

for (const family of Object.keys(families)) {
  for (const reasoning_effort of ["low", "none", undefined]) {
    const at = `${family}, effort ${reasoning_effort}`;
    const thinks = reasoning_effort !== "none";
    const converse = async (conversation, tools) => {
      const request = {
        model: `scripted-${family}`, messages: conversation, tools, reasoning_effort, temperature: 2, logprobs: true,
      };
      const { choices: [choice], usage } = await client.chat.completions.create(request);
      const { message } = choice;
      const { reasoning_tokens } = usage.completion_tokens_details;
      assert.equal(reasoning_tokens > 0, thinks || family === "harmony", at);  // that thinks unasked
      assert.ok(reasoning_tokens < usage.completion_tokens, at);
      assert.equal(choice.finish_reason, message.tool_calls ? "tool_calls" : "stop", at);
      assert.equal(message.reasoning, thinks ? scriptedThought : undefined, at);
      // Of the content alone, however thoughts and calls are written; tokens may reach beyond either end.
      const told = Buffer.from((choice.logprobs?.content ?? []).flatMap(({ bytes }) => bytes)).toString();
      const content = message.content ?? "";
      assert.ok(told.includes(content) && told.length < content.length + 16, `${at}: ${told}`);

      // By hand, as every program that reads the stream does: a call begins with its name and id, and
      // its arguments grow.
      const live = { role: "", content: "", reasoning: "", calls: [] };
      const finishes = [];
      for await (const { choices: [{ delta, finish_reason }] } of await client.chat.completions.create({ ...request, stream: true })) {
        live.role += delta.role ?? "";
        live.content += delta.content ?? "";
        live.reasoning += delta.reasoning ?? "";
        for (const { index, id, type, function: { name, arguments: part } } of delta.tool_calls ?? []) {
          if (index === live.calls.length) live.calls.push({ id, type, name, arguments: "" });
          live.calls[index].arguments += part ?? "";
        }
        if (finish_reason) finishes.push(finish_reason);
      }
      assert.deepEqual(finishes, [choice.finish_reason], at);
      assert.equal(live.role, "assistant", `${at}: told once`);
      assert.equal(live.content, message.content ?? "", at);
      assert.equal(live.reasoning, message.reasoning ?? "", at);
      assert.ok(live.calls.every(({ id }) => id), at);
      assert.equal(new Set(live.calls.map(({ id }) => id)).size, live.calls.length, at);
      assert.deepEqual(live.calls.map(({ id, ...rest }) => rest), scriptedCalls(message), at);

      const [final] = (await client.chat.completions.stream(request).finalChatCompletion()).choices;
      assert.equal(final.finish_reason, choice.finish_reason, at);
      assert.equal(final.message.role, "assistant", at);
      assert.equal(final.message.content ?? "", message.content ?? "", at);
      const tokensOf = ({ logprobs }) => (logprobs?.content ?? []).map(({ token }) => token);
      assert.deepEqual(tokensOf(final), tokensOf(choice), at);
      assert.deepEqual(scriptedCalls(final.message), scriptedCalls(message), at);
      return message;
    };
    for (const [said, { calls: expected = [], then }] of Object.entries(scripts)) {
      const begun = [{ role: "user", content: said }];
      const answer = await converse(begun, scriptedTools);
      assert.equal((answer.content ?? "").trim(), answerTo(family, said), at);
      assert.deepEqual(scriptedCalls(answer), written(expected), at);
      if (expected.length === 0) continue;
      const results = answer.tool_calls.map(({ id, function: { arguments: given } }) =>
        ({ role: "tool", tool_call_id: id, content: resultOf(JSON.parse(given)) }));
      const concluded = await converse([...begun, answer, ...results], scriptedTools);
      assert.equal(concluded.content, (thinks ? "As I thought: " : "") + then, at);
    }
    assert.equal((await converse([{ role: "user", content: "greet" }])).content, answerTo(family, "greet"), at);
  }
}

// The client's own loop, which sends back all it got.
for (const stream of [false, true]) {
  const given = [];
  const loop = client.chat.completions.runTools({
    model: "scripted-hermes", messages: [{ role: "user", content: "call two" }], reasoning_effort: "none", stream,
    tools: [{ type: "function", function: {
      ...weatherTool, parse: JSON.parse, function: (args) => { given.push(args); return resultOf(args); },
    } }],
  });
  assert.equal(await loop.finalContent(), scripts["call two"].then);
  assertSame(given, scripts["call two"].calls);
}

// One call at most, of a model that makes two.
const alone = await client.chat.completions.create({
  model: "scripted-hermes", messages: [{ role: "user", content: "call two" }], tools: scriptedTools, parallel_tool_calls: false,
});
assert.deepEqual(scriptedCalls(alone.choices[0].message), written(scripts["call two"].calls.slice(0, 1)));

// Responses: items of reasoning, text and calls, which are sent back as they came.
const itemOrder = (output) => output.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1]);
for (const family of Object.keys(families)) {
  for (const effort of ["low", "none"]) {
    const at = `responses of ${family}, effort ${effort}`;
    const converse = async (input, tools) => {
      const request = {
        model: `scripted-${family}`, input, tools, reasoning: { effort }, temperature: 2, include: ["reasoning.encrypted_content"],
      };
      const whole = await client.responses.create(request);
      assert.equal(whole.status, "completed", at);
      const pieces = { "response.reasoning_summary_text.delta": "", "response.output_text.delta": "", "response.function_call_arguments.delta": "" };
      const added = [];
      const done = [];
      const live = client.responses.stream(request);
      for await (const event of live) {
        if (event.type in pieces) pieces[event.type] += event.delta;
        if (event.type === "response.output_item.added") added.push(event.item.id);
        if (event.type === "response.output_item.done") done.push(event.item);
      }
      const final = await live.finalResponse();
      const shape = ({ type, summary, content, name, arguments: given, status }) =>
        ({ type, summary, text: content?.map((part) => part.text), name, given, status });
      assert.deepEqual(done.map(shape), whole.output.map(shape), at);
      assert.deepEqual(final.output.map(shape), whole.output.map(shape), at);
      assert.deepEqual(added, done.map(({ id }) => id), at);
      const of = (type) => whole.output.filter((item) => item.type === type);
      assert.equal(pieces["response.reasoning_summary_text.delta"], of("reasoning").map(({ summary }) => summary[0].text).join(""), at);
      assert.equal(pieces["response.output_text.delta"], whole.output_text, at);
      assert.equal(pieces["response.function_call_arguments.delta"], of("function_call").map((item) => item.arguments).join(""), at);
      assert.deepEqual(of("reasoning").map(({ summary }) => summary), effort === "low" ? [[{ type: "summary_text", text: scriptedThought }]] : [], at);
      return whole;
    };
    const flatTools = [{ type: "function", ...weatherTool, strict: false }];
    for (const [said, { text = "", calls: expected = [], then }] of Object.entries(scripts)) {
      const begun = [{ role: "user", content: said }];
      const answer = await converse(begun, flatTools);
      const reasoning = effort === "low" ? ["reasoning"] : [];
      assert.deepEqual(itemOrder(answer.output),
        [...reasoning, ...(expected.length === 0 || text ? ["message"] : []), ...(expected.length > 0 ? ["function_call"] : [])], at);
      assert.equal(answer.output_text.trim(), answerTo(family, said), at);
      const calls = answer.output.filter(({ type }) => type === "function_call");
      assert.deepEqual(calls.map(({ name, arguments: given }) => [name, given]), expected.map((args) => ["weather", JSON.stringify(args)]), at);
      if (expected.length === 0) continue;
      const results = calls.map(({ call_id, arguments: given }) =>
        ({ type: "function_call_output", call_id, output: resultOf(JSON.parse(given)) }));
      const concluded = await converse([...begun, ...answer.output, ...results], flatTools);
      assert.equal(concluded.output_text, (effort === "low" ? "As I thought: " : "") + then, at);
      assert.deepEqual(itemOrder(concluded.output), [...reasoning, "message"], at);
    }
  }
}

// ---- Embeddings. The client asks for base64 and decodes it, unless told.

const embedded = await client.embeddings.create({ model: "bert", input: ["a cat", "a dog"] });
assert.equal(embedded.data.length, 2);
const plain = await client.embeddings.create({ model: "bert", input: "a dog", encoding_format: "float" });
assert.equal(plain.data[0].embedding.length, embedded.data[1].embedding.length);
plain.data[0].embedding.forEach((value, i) => assert.ok(Math.abs(value - embedded.data[1].embedding[i]) < 1e-6));
const less = await client.embeddings.create({ model: "bert", input: "a dog", dimensions: 8 });
assert.equal(less.data[0].embedding.length, 8);
assert.ok(embedded.usage.prompt_tokens > 0);

// ---- Errors, and an answer that nobody waits for

await assert.rejects(client.models.retrieve("missing"), NotFoundError);
await assert.rejects(client.chat.completions.create({ model: "missing", messages }), (error) => {
  assert.ok(error instanceof NotFoundError);
  assert.match(error.message, /model 'missing' not found/);
  assert.equal(error.type, "not_found_error");
  return true;
});
await assert.rejects(client.chat.completions.create({ ...greedy, messages: [] }), BadRequestError);
await assert.rejects(client.chat.completions.create({ ...greedy, messages, n: 1000 }), BadRequestError);
await assert.rejects(client.responses.create({ ...greedy, input: prompt, previous_response_id: "resp_1" }), BadRequestError);
await assert.rejects(client.completions.create({ ...greedy, prompt: [1, 99999] }), BadRequestError);
const custom = { type: "custom", custom: { name: "weather" } };
await assert.rejects(client.chat.completions.create({ ...asking, tool_choice: "auto", tools: [custom] }), BadRequestError);
await assert.rejects(client.responses.create({ ...greedy, input: prompt, conversation: "conv_1" }), BadRequestError);
await assert.rejects(client.chat.completions.create({ ...asking, model: "stories260k" }), BadRequestError);

const endless = { model: "endless", temperature: 0, stream: true };
const limit = 10_000_000;
await abortEndless((signal) => client.chat.completions.create({ ...endless, messages, max_tokens: limit }, { signal }));
await abortEndless((signal) => client.completions.create({ ...endless, prompt, max_tokens: limit }, { signal }));
await abortEndless((signal) => client.responses.create({ ...endless, input: prompt, max_output_tokens: limit }, { signal }));
console.log("openai: ok");

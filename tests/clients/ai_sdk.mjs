// npm's `ai` with its providers for Ollama and OpenAI, unchanged, against the server that OLLAMA_HOST
// names. The providers check each answer and event against schemas of their own.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, embed, embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { createOllama } from "ollama-ai-provider-v2";
import { z } from "zod";
import {
  Scored, abortEndless, answerTo, assertSame, families, host, prompt, resultOf, scriptedThought, scripts, toldNatively,
} from "./common.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const story = await toldNatively();
const ollama = createOllama({ baseURL: `${host}/api` });
const openai = createOpenAI({ baseURL: `${host}/v1`, apiKey: "any" });
const interfaces = { ollama, chat: openai.chat, completions: openai.completion, responses: openai.responses };
// The provider for Ollama passes on none of the common settings, but its own.
const own = (options) => ({ providerOptions: { ollama: { options: { temperature: 0, ...options } } } });
const greedy = { prompt, temperature: 0, maxOutputTokens: 256, maxRetries: 0, ...own({ num_predict: 256 }) };

for (const [name, of] of Object.entries(interfaces)) {
  // ---- The same text from every interface, streamed and not
  const whole = await generateText({ ...greedy, model: of("stories260k") });
  // For completions the client writes "user:" and more around the prompt: another story.
  const expected = name === "completions" ? whole.text : story;
  assert.equal(whole.text, expected, name);
  assert.equal(whole.finishReason, "length", name);
  assert.equal(whole.usage.outputTokens, 256, name);

  const live = streamText({ ...greedy, model: of("stories260k") });
  let text = "";
  for await (const part of live.textStream) text += part;
  assert.equal(text, expected, name);
  assert.equal(await live.finishReason, "length", name);
  assert.equal((await live.usage).outputTokens, 256, name);

  // ---- Errors, and an answer that nobody waits for
  await assert.rejects(generateText({ ...greedy, model: of("missing") }), (error) => {
    assert.ok(APICallError.isInstance(error), `${name}: ${error}`);
    assert.equal(error.statusCode, 404, name);
    assert.match(error.message + error.responseBody, /model 'missing' not found/, name);
    return true;
  });
  await abortEndless((abortSignal) => streamText({
    ...greedy, ...own({ num_predict: 10_000_000 }), model: of("endless"), maxOutputTokens: 10_000_000, abortSignal,
  }).textStream);
}

const Weather = z.object({ city: z.enum(["Paris", "Rome"]), days: z.int().min(1).max(9) });
for (const [name, of] of Object.entries(interfaces)) {
  if (name === "completions") continue;  // it has neither schemas nor tools

  // ---- Structured output
  const formatted = await generateText({
    ...greedy, model: of("stories260k"), maxOutputTokens: 500, ...own({ num_predict: 500 }), output: Output.object({ schema: Weather }),
  });
  assert.ok(Weather.safeParse(formatted.output).success, name);
  const scored = await generateText({
    ...greedy, model: of("stories260k"), maxOutputTokens: 500, ...own({ num_predict: 500 }), output: Output.object({ schema: Scored }),
  });
  assert.ok(Scored.safeParse(scored.output).success, name);
  const growing = streamText({
    ...greedy, model: of("stories260k"), maxOutputTokens: 500, ...own({ num_predict: 500 }), output: Output.object({ schema: Weather }),
  });
  let last;
  for await (const part of growing.partialOutputStream) last = part;
  assert.deepEqual(last, formatted.output, name);

  // ---- Tools: the client's own loop calls one and tells the model its answer
  const asked = [];
  const weather = tool({
    description: "tells the weather", inputSchema: Weather,
    execute: async (input) => { asked.push(input); return "sunny"; },
  });
  const asking = {
    ...greedy, model: of("tools"), maxOutputTokens: 500, ...own({ num_predict: 500 }), tools: { weather }, stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  };
  const acted = await generateText(asking);
  assert.equal(acted.steps.length, 2, name);
  assert.equal(acted.steps[0].finishReason, "tool-calls", name);
  assert.equal(acted.steps[0].toolResults[0].output, "sunny", name);
  const actedLive = streamText(asking);
  await actedLive.consumeStream();
  assert.equal((await actedLive.steps).length, 2, name);
  assert.deepEqual(asked.map((input) => Weather.safeParse(input).success), [true, true], name);
  assert.deepEqual(asked[0], asked[1], name);
  const named = { ...asking, stopWhen: stepCountIs(1), prepareStep: () => ({ toolChoice: { type: "tool", toolName: "weather" } }) };
  assert.equal((await generateText(named)).toolCalls[0].toolName, "weather", name);
}

// ---- Thinking

for (const [name, model, providerOptions] of [
  ["ollama", ollama("thinker"), { ollama: { think: true, options: { temperature: 0, num_predict: 20 } } }],
  ["responses", openai.responses("thinker"), { openai: { reasoningEffort: "low", forceReasoning: true, reasoningSummary: "auto" } }],
]) {
  const thought = await generateText({ ...greedy, model, maxOutputTokens: 20, providerOptions });
  assert.ok(thought.reasoningText?.length > 10, `${name}: ${thought.reasoningText}`);
  assert.equal(thought.text, "", name);
  const live = streamText({ ...greedy, model, maxOutputTokens: 20, providerOptions });
  await live.consumeStream();
  assert.ok((await live.reasoningText)?.length > 10, name);
}

// ---- A model that says thoughts, text and calls word for word: the client's own loop calls the tool
// until the model has an answer

for (const [name, of] of Object.entries(interfaces)) {
  if (name === "completions") continue;
  for (const family of Object.keys(families)) {
    for (const thinks of [true, false]) {
      const providerOptions = {
        ollama: { think: thinks },
        // Unless told so, the client sends references to what it takes for stored.
        openai: { reasoningEffort: thinks ? "low" : "none", forceReasoning: true, reasoningSummary: "auto", store: false },
      };
      for (const [said, { calls: expected = [], then }] of Object.entries(scripts)) {
        const at = `${name}: ${family}, ${said}, think ${thinks}`;
        const given = [];
        const weather = tool({
          description: "tells the weather", inputSchema: z.object({ days: z.int(), city: z.string() }),
          execute: async (input) => { given.push(input); return resultOf(input); },
        });
        const asking = {
          model: of(`scripted-${family}`), prompt: said, tools: { weather }, stopWhen: stepCountIs(3), maxRetries: 0, providerOptions,
        };
        const check = (steps, text) => {
          assert.deepEqual(steps.map(({ finishReason }) => finishReason), expected.length > 0 ? ["tool-calls", "stop"] : ["stop"], at);
          assert.equal(steps[0].text.trim(), answerTo(family, said), at);
          assert.deepEqual(given.splice(0), expected, at);
          assertSame(steps[0].toolCalls.map(({ input }) => input), expected, at);
          if (then) assert.equal(text.replace("As I thought: ", ""), then, at);
          // Chat completions have no place for thoughts in this client.
          if (name !== "chat") {
            for (const { reasoningText } of steps) assert.equal(reasoningText, thinks ? scriptedThought : undefined, at);
          }
        };
        const acted = await generateText(asking);
        check(acted.steps, acted.text);
        const live = streamText(asking);
        await live.consumeStream();
        check(await live.steps, await live.text);
      }
    }
  }
}

// ---- Embeddings

const vectors = [];
for (const model of [ollama.embeddingModel("bert"), openai.embeddingModel("bert")]) {
  const { embeddings } = await embedMany({ model, values: ["a cat", "a dog"], maxRetries: 0 });
  const { embedding } = await embed({ model, value: "a dog", maxRetries: 0 });
  embedding.forEach((value, i) => assert.ok(Math.abs(value - embeddings[1][i]) < 1e-6));
  vectors.push(embedding);
}
vectors[0].forEach((value, i) => assert.ok(Math.abs(value - vectors[1][i]) < 1e-6));
console.log("ai-sdk: ok");

// What the clients' tests share. run.sh makes the models: "tools" and "thinker" are the bundled model
// with templates that know of tools and thinking, "endless" never ends its answer, "bert" embeds, and
// "scripted-FAMILY" says word for word what scripted_model.mjs has.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Ollama } from "ollama";
import { z } from "zod";

export { answerTo, families, scripts, thought as scriptedThought } from "./scripted_model.mjs";

export const host = `http://${process.env.OLLAMA_HOST}`;
// Set in a second run: the server asks for this key.
export const key = process.env.API_KEY;
export const prompt = "Once upon a time";

// zod says these by patterns, formats and lengths at once.
export const Contact = z.object({
  mail: z.email().max(40),
  born: z.iso.date(),
  code: z.string().regex(/^[a-z]{2}-\d+$/).max(8),
});
// By propertyNames; openai's helper refuses those by itself.
export const Scored = Contact.extend({
  points: z.record(z.enum(["home", "away"]), z.int().min(0).max(100).multipleOf(5)),
});

// What the bundled model tells greedily, as the server's own API has it. The other APIs give the same.
export async function toldNatively() {
  const answer = await new Ollama({ host }).generate({ model: "stories260k", prompt, options: { temperature: 0 } });
  assert.match(answer.response, /^, there was a little girl named Lily\. She loved to play outside in the park\./);
  return answer.response;
}

// Aborts an answer of the model "endless" after some pieces: it ends on this side, and the server lets
// go of the model. `start` is given the signal.
export async function abortEndless(start) {
  const abort = new AbortController();
  let pieces = 0;
  try {
    for await (const _ of await start(abort.signal)) {
      if (++pieces === 3) abort.abort();
    }
  } catch (error) {
    assert.match(String(error), /abort/i);
  }
  assert.ok(pieces >= 3);
  let users;
  for (let i = 0; i < 200 && users !== "0"; ++i) {
    if (i > 0) await sleep(50);
    const metrics = await (await fetch(`${host}/metrics`)).text();
    users = /^ollama_model_users\{model="endless:latest"\} (\d+)$/m.exec(metrics)?.[1];
  }
  assert.equal(users, "0", "the server goes on with an answer that nobody waits for");
}

// The scripts' tool, and what its calls are told.
export const weatherTool = {
  name: "weather",
  description: "tells the weather",
  parameters: {
    type: "object",
    properties: { city: { type: "string" }, days: { type: "integer" } },
    required: ["city", "days"],
  },
};
export const resultOf = ({ city }) => ({ Paris: "sunny", Rome: "rainy" })[city];
// Equal, with members in the same order.
export const assertSame = (actual, expected, message) => assert.equal(JSON.stringify(actual), JSON.stringify(expected), message);

// node scripted_model.mjs FOLDER: writes a model that says what the scripts below have, word for word
// and at any temperature, and a Modelfile for each family of models' ways to write calls and thoughts.
//
// The model is a llama of one layer that adds nothing: which token comes next depends on the last one
// alone. Each token has a code of random signs; its embedding is the code of the token that follows
// it, and a row of the output matrix is its own code. A token may stand in one place of one script
// only, so the vocabulary has as many of the same text as scripts have places for it.
//
// A template ends its prompt with a token that names the script: the family, whether to think, what
// the user said, which tools there are, what was called with which arguments, and what came of it.
// What does not arrive in the prompt as it should names no script, and the model says `lost`. Results
// without their tool's name, as some clients send them, begin its answer with "Somebody said: ".
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

// ---- What is said

const paris = { days: 2, city: "Paris" };
const rome = { days: 1, city: "Rome" };
export const tool = "weather";
export const thought = "Hm, let me think.";
export const lost = "I am lost.";

// By what the user says; `then` is the answer to the tools' results.
export const scripts = {
  greet: { text: "Hello, how are you?" },
  "call one": { calls: [paris], results: ["sunny"], then: "It is sunny in Paris, 20 °C." },
  "call two": {
    text: "Let me see.", calls: [paris, rome], results: ["sunny", "rainy"], then: "It is sunny in Paris and rainy in Rome.",
  },
  "call none": {},  // text that looks like a call and is none: its family's
};

// ---- How each family writes it

const json = (name, args, key = "arguments") => `{"name": "${name}", "${key}": {"days": ${args.days}, "city": "${args.city}"}}`;
const thinks = (open, close) => (answer) => `${open}\n${thought}\n${close}\n\n${answer}`;
const analysis = `<|channel|>analysis<|message|>${thought}<|end|><|start|>assistant`;
const harmonyCall = (args) =>
  `<|channel|>commentary to=functions.${tool} <|constrain|>json<|message|>{"days": ${args.days}, "city": "${args.city}"}`;

export const families = {
  hermes: {
    think: thinks("<think>", "</think>"),
    call: (calls) => calls.map((args) => `<tool_call>\n${json(tool, args)}\n</tool_call>`).join("\n"),
    none: 'A <tool_call>{"name": "snow", "arguments": {}}</tool_call> is none, and <tool_call> alone, and <tool.',
    history: { open: "<think>", close: "</think>", call: '<tool_call>{"name": "NAME", "arguments": ARGUMENTS}</tool_call>' },
  },
  llama: {
    think: thinks("<think>", "</think>"),
    call: (calls) =>
      (calls.length > 1 ? "<|python_tag|>" : "") + calls.map((args) => json(tool, args, "parameters")).join("; "),
    none: '{"name": "weather", "age": 3} is no call.',
    history: { open: "<think>", close: "</think>", call: '<|python_tag|>{"name": "NAME", "parameters": ARGUMENTS}' },
  },
  mistral: {
    think: thinks("[THINK]", "[/THINK]"),
    call: (calls) =>
      calls.length > 1
        ? calls.map((args) => `[TOOL_CALLS]${tool}[ARGS]{"days": ${args.days}, "city": "${args.city}"}`).join("")
        : `[TOOL_CALLS][${json(tool, calls[0])}]`,
    none: "[weather] is a word, and [TOOL_CALLS] a mark.",
    history: { open: "[THINK]", close: "[/THINK]", call: '[TOOL_CALLS][{"name": "NAME", "arguments": ARGUMENTS}]' },
  },
  harmony: {
    // It thinks in any case.
    say: (text) => `${analysis}<|channel|>final<|message|>${text}<|return|>`,
    call: (calls, text) =>
      analysis + (text ? `<|channel|>commentary<|message|>${text}<|end|><|start|>assistant` : "") +
      calls.map(harmonyCall).join("<|end|><|start|>assistant") + "<|call|>",
    none: 'I could say {"days": 2} to=functions.weather.',
    history: {
      open: "<|channel|>analysis<|message|>", close: "<|end|>",
      call: "<|start|>assistant<|channel|>commentary to=functions.NAME<|message|>ARGUMENTS<|call|>",
    },
  },
};
// The same as hermes, but its template is the Jinja in the model file.
families.jinja = families.hermes;

// What a family's model answers to `said`.
export const answerTo = (family, said) => scripts[said].text ?? (scripts[said].calls ? "" : families[family].none);

// ---- The templates. Behind the conversation stands the script's name.

function goTemplate(family) {
  const { open, close, call } = families[family].history;
  const called = call.replace("NAME", "{{ .Function.Name }}").replace("ARGUMENTS", "{{ .Function.Arguments }}");
  return `{{- range .Tools }}{{ .Function }}
{{ end }}
{{- $name := "" }}
{{- range .Messages }}{{ .Role }}: {{ if .Thinking }}${open}{{ .Thinking }}${close}{{ end }}{{ .Content }}
{{- range .ToolCalls }}${called}{{ end }}
{{ if eq .Role "user" }}{{ $name = .Content }}{{ range $.Tools }}{{ $name = printf "%s, %s" $name .Function.Name }}{{ end }}
{{- else if eq .Role "tool" }}{{ $name = printf "%s %s=%s" $name .ToolName .Content }}
{{- else if eq .Role "assistant" }}
{{- if .Thinking }}{{ $name = printf "%s, thought" $name }}{{ end }}
{{- range .ToolCalls }}{{ $name = printf "%s %s" $name .Function.Arguments }}{{ end }}
{{- end }}
{{- end }}<|${family}:{{ if .Think }} think,{{ end }} {{ $name }}|>`;
}

const jinjaTemplate = `{%- for tool in tools or [] %}{{ tool | tojson }}
{% endfor %}
{%- set of = namespace(name="") %}
{%- for message in messages %}
{{- message.role }}: {% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}
{% if message.role == "user" %}{% set of.name = message.content %}
{%- for tool in tools or [] %}{% set of.name = of.name ~ ", " ~ tool.function.name %}{% endfor %}
{%- elif message.role == "tool" %}{% set of.name = of.name ~ " " ~ (message.name or "") ~ "=" ~ message.content %}
{%- elif message.role == "assistant" %}
{%- if message.reasoning_content %}{% set of.name = of.name ~ ", thought" %}{% endif %}
{%- for call in message.tool_calls or [] %}
{%- set of.name = of.name ~ " " ~ (call.function.arguments | tojson | replace('": ', '":') | replace(', "', ',"')) %}
{%- endfor %}
{%- endif %}
{%- endfor %}<|jinja:{% if enable_thinking %} think,{% endif %} {{ of.name }}|>`;

// Each script's name and text, as the templates and the families have them.
function* namedScripts() {
  for (const [family, { think, say = (text) => text, call, none }] of Object.entries(families)) {
    for (const thinking of [false, true]) {
      const finished = (answer) => (thinking && think ? think(answer) : answer);
      const name = (rest) => `<|${family}:${thinking ? " think," : ""} ${rest}|>`;
      for (const [said, { text, calls, results, then }] of Object.entries(scripts)) {
        if (!calls) {
          for (const tools of ["", `, ${tool}`]) yield [name(said + tools), finished(say(text ?? none))];
          continue;
        }
        const asked = `${said}, ${tool}`;
        yield [name(asked), finished(think ? (text ? `${text}\n` : "") + call(calls) : call(calls, text))];
        // Go sorts a map's keys, Jinja does not.
        const told = calls.map(({ days, city }) => JSON.stringify(family === "jinja" ? { days, city } : { city, days }));
        for (const thoughtOf of ["", ", thought"]) {
          for (const who of [tool, ""]) {
            const done = [...told, ...results.map((result) => `${who}=${result}`)].join(" ");
            const opening = (thoughtOf && "As I thought: ") + (who ? "" : "Somebody said: ");
            yield [name(`${asked}${thoughtOf} ${done}`), finished(say(opening + then))];
          }
        }
      }
    }
  }
}

// ---- The vocabulary, and what follows each token

const kUnknown = 2, kControl = 3, kByte = 6, kNormal = 1;
const kEnd = 2;
const marks = /<\|[a-z_]+\|>|\[TOOL_CALLS\]|\[ARGS\]/;

// Marks are tokens, other text comes in pieces of up to five characters, and what is not ASCII in bytes.
function* piecesOf(text) {
  for (const part of text.split(new RegExp(`(${marks.source})`)).filter((part) => part !== "")) {
    if (marks.test(part)) {
      yield { text: part, type: kControl };
      continue;
    }
    for (const [run] of part.matchAll(/[\x00-\x7f]{1,5}|[^\x00-\x7f]/gu)) {
      if (run.charCodeAt(0) < 0x80) {
        yield { text: run.replaceAll(" ", "\u2581"), type: kNormal };
      } else {
        for (const byte of Buffer.from(run)) yield { text: byteName(byte), type: kByte };
      }
    }
  }
}
const byteName = (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;

function vocabulary() {
  const tokens = [
    { text: "<unk>", type: kUnknown, next: kEnd }, { text: "<s>", type: kControl, next: kEnd },
    { text: "</s>", type: kControl, next: kEnd },
  ];
  const add = (token) => tokens.push(token) - 1;
  // These end an answer, in any script.
  const ends = new Map(["<|call|>", "<|return|>"].map((text) => [text, add({ text, type: kControl, next: kEnd })]));
  // Gives back the first token.
  const addScript = (text) => {
    const pieces = [...piecesOf(text)];
    const last = ends.get(pieces.at(-1).text);
    if (last !== undefined) pieces.pop();
    const first = tokens.length;
    pieces.forEach((piece, i) => add({ ...piece, next: i + 1 < pieces.length ? tokens.length + 1 : (last ?? kEnd) }));
    return first;
  };
  for (const [name, text] of namedScripts()) {
    const token = add({ text: name, type: kControl, next: 0 });
    tokens[token].next = addScript(text);
  }
  // What prompts are made of comes last: of tokens with one text the last is found.
  const fallback = addScript(lost);
  for (const text of new Set(tokens.filter(({ type }) => type === kNormal).map((token) => token.text))) {
    add({ text, type: kNormal, next: fallback });
  }
  for (let byte = 0; byte < 256; ++byte) add({ text: byteName(byte), type: kByte, next: fallback });
  return tokens;
}

// ---- The file

const kWidth = 256;
const kHead = 32;
const GGUF = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 };

function u32(value) { const bytes = Buffer.alloc(4); bytes.writeUInt32LE(value); return bytes; }
function u64(value) { const bytes = Buffer.alloc(8); bytes.writeBigUInt64LE(BigInt(value)); return bytes; }
function string(text) { const bytes = Buffer.from(text); return Buffer.concat([u64(bytes.length), bytes]); }
const scalars = {
  [GGUF.u32]: u32, [GGUF.i32]: u32, [GGUF.bool]: (value) => Buffer.from([value ? 1 : 0]), [GGUF.string]: string,
  [GGUF.f32]: (value) => { const bytes = Buffer.alloc(4); bytes.writeFloatLE(value); return bytes; },
};
const entry = (key, type, value) => Buffer.concat([string(key), u32(type), scalars[type](value)]);
const list = (key, type, values) =>
  Buffer.concat([string(key), u32(GGUF.array), u32(type), u64(values.length), ...values.map(scalars[type])]);
const padding = (size) => Buffer.alloc((32 - (size % 32)) % 32);

// Half-precision floats: random signs of one (the generator is "mulberry32").
function codes(count) {
  let state = 20_260_711;
  const rows = new Uint16Array(count * kWidth);
  for (let i = 0; i < rows.length; ++i) {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    rows[i] = (mixed ^ (mixed >>> 14)) & 1 ? 0xbc00 : 0x3c00;
  }
  return rows;
}

export function modelFile() {
  const tokens = vocabulary();
  const output = codes(tokens.length);
  const embeddings = new Uint16Array(output.length);
  tokens.forEach(({ next }, id) => embeddings.set(output.subarray(next * kWidth, (next + 1) * kWidth), id * kWidth));
  // A row's product with its own code is 256, with another's far below 128: no temperature helps those.
  const ones = (value) => new Float32Array(kWidth).fill(value);
  const zeros = (...shape) => ({ shape, data: new Uint16Array(shape[0] * shape[1]) });
  const tensors = {
    "token_embd.weight": { shape: [kWidth, tokens.length], data: embeddings },
    "output_norm.weight": { shape: [kWidth], data: ones(4) },
    "output.weight": { shape: [kWidth, tokens.length], data: output },
    "blk.0.attn_norm.weight": { shape: [kWidth], data: ones(1) },
    "blk.0.ffn_norm.weight": { shape: [kWidth], data: ones(1) },
    "blk.0.attn_q.weight": zeros(kWidth, kHead),
    "blk.0.attn_k.weight": zeros(kWidth, kHead),
    "blk.0.attn_v.weight": zeros(kWidth, kHead),
    "blk.0.attn_output.weight": zeros(kHead, kWidth),
    "blk.0.ffn_gate.weight": zeros(kWidth, kHead),
    "blk.0.ffn_up.weight": zeros(kWidth, kHead),
    "blk.0.ffn_down.weight": zeros(kHead, kWidth),
  };
  const metadata = [
    entry("general.architecture", GGUF.string, "llama"),
    entry("general.name", GGUF.string, "scripted"),
    entry("llama.block_count", GGUF.u32, 1),
    entry("llama.context_length", GGUF.u32, 8192),
    entry("llama.embedding_length", GGUF.u32, kWidth),
    entry("llama.feed_forward_length", GGUF.u32, kHead),
    entry("llama.attention.head_count", GGUF.u32, 1),
    entry("llama.attention.key_length", GGUF.u32, kHead),
    entry("llama.attention.value_length", GGUF.u32, kHead),
    entry("llama.attention.layer_norm_rms_epsilon", GGUF.f32, 1e-5),
    entry("llama.rope.dimension_count", GGUF.u32, kHead),
    entry("tokenizer.ggml.model", GGUF.string, "llama"),
    list("tokenizer.ggml.tokens", GGUF.string, tokens.map(({ text }) => text)),
    list("tokenizer.ggml.scores", GGUF.f32, tokens.map(() => 0)),
    list("tokenizer.ggml.token_type", GGUF.i32, tokens.map(({ type }) => type)),
    entry("tokenizer.ggml.bos_token_id", GGUF.u32, 1),
    entry("tokenizer.ggml.eos_token_id", GGUF.u32, kEnd),
    entry("tokenizer.ggml.add_bos_token", GGUF.bool, false),
    entry("tokenizer.ggml.add_space_prefix", GGUF.bool, false),
    entry("tokenizer.chat_template", GGUF.string, jinjaTemplate),
  ];
  const infos = [];
  const data = [];
  let offset = 0;
  for (const [name, tensor] of Object.entries(tensors)) {
    const bytes = Buffer.from(tensor.data.buffer);
    const type = tensor.data instanceof Float32Array ? 0 : 1;
    infos.push(string(name), u32(tensor.shape.length), ...tensor.shape.map(u64), u32(type), u64(offset));
    data.push(bytes, padding(bytes.length));
    offset += bytes.length + padding(bytes.length).length;
  }
  const header = Buffer.concat([
    Buffer.from("GGUF"), u32(3), u64(Object.keys(tensors).length), u64(metadata.length), ...metadata, ...infos,
  ]);
  return Buffer.concat([header, padding(header.length), ...data]);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const folder = process.argv[2];
  writeFileSync(join(folder, "scripted.gguf"), modelFile());
  for (const family of Object.keys(families)) {
    const own = family === "jinja" ? "" : `TEMPLATE """${goTemplate(family)}"""\n`;
    writeFileSync(join(folder, `Modelfile.${family}`), `FROM ./scripted.gguf\n${own}`);
  }
}

#!/usr/bin/env bash
# Structured output over HTTP: the bundled model, which knows nothing of JSON, answers with JSON of a
# schema, streamed and not, and with what a grammar says; what cannot be met is refused with the reason.
. "$(dirname "$0")/lib.sh"

schema='{"type":"object","properties":{"color":{"enum":["red","green"]},"count":{"type":"integer","minimum":1,"maximum":9},"open":{"type":"boolean"}},"required":["color","count","open"]}'

start_server
generate() {
  curl -sS "$url/api/generate" -d "{\"model\":\"stories260k\",\"prompt\":\"Once\",\"stream\":false,$1}"
}

answer=$(generate "\"format\":$schema")
expect "$answer" '"done_reason":"stop"'
expect "$(tr -d ' \t' <<<"${answer//\\n/}" | sed 's/\\t//g')" \
  '"response":"\{\\"color\\":\\"(red|green)\\",\\"count\\":[1-9],\\"open\\":(true|false)\}"'

chat=$(curl -sSN "$url/api/chat" \
  -d "{\"model\":\"stories260k\",\"messages\":[{\"role\":\"user\",\"content\":\"Once\"}],\"format\":{\"type\":\"boolean\"}}")
expect "$(sed -n 's/.*"content":"\([^"]*\)".*/\1/p' <<<"$chat" | tr -d '\n')" '^(true|false)$'

expect "$(generate '"format":"json","options":{"num_predict":8}')" '"response":"\{'
expect "$(generate '"format":"root ::= \"yes\" | \"no\""')" '"response":"(yes|no)"'

# Refused, with the reason.
expect "$(generate '"format":{"type":"integer","minimum":2,"maximum":1}')" '"error":"no value can meet the schema; at #: no integer is within'
expect "$(generate '"format":{"not":{"type":"null"}}')" '"error":"invalid schema, at #: \\"not\\" is not supported"'
expect "$(generate '"format":{"not":{}}')" '"error":"no value can meet the schema; at #: false is what no value meets"'
expect "$(generate '"format":"xml"')" '"error":"invalid format: \\"xml\\"'
status=$(curl -s -o /dev/null -w '%{http_code}' "$url/api/generate" -d '{"model":"stories260k","prompt":"a","format":{"enum":[]}}')
expect_same "$status" 400
expect_same "$("$OLLAMA" run stories260k Once --format 'root ::= "yes"')" yes

# ---- Calls of tools that are forced, and models that think
cat >"$work/Modelfile" <<'MODELFILE'
FROM stories260k
TEMPLATE """{{ .Tools }}{{ range .Messages }}{{ .Role }}: {{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}{{ range .ToolCalls }}<tool_call>{"name":"{{ .Function.Name }}","arguments":{{ .Function.Arguments }}}</tool_call>{{ end }}
{{ end }}assistant: {{ if .Think }}<think>{{ end }}"""
MODELFILE
"$OLLAMA" create thinker -f "$work/Modelfile" >/dev/null
tools='[{"type":"function","function":{"name":"look","parameters":{"type":"object","properties":{"where":{"$ref":"#/$defs/place"}},"required":["where"],"additionalProperties":false,"$defs":{"place":{"enum":["here","there"]}}}}},
  {"type":"function","function":{"name":"wait","parameters":{"type":"object","properties":{"seconds":{"type":"integer","minimum":1,"maximum":9}},"required":["seconds"],"additionalProperties":false}}}]'
ask() { curl -sS "$url/api/chat" -d "{\"model\":\"thinker\",\"stream\":false,\"messages\":[{\"role\":\"user\",\"content\":\"Once\"}],$1}"; }
expect "$(ask "\"tools\":$tools,\"tool_choice\":\"required\"")" \
  '"content":"","tool_calls":\[\{"id":"call_[^"]+","function":\{"index":0,"name":"(look","arguments":\{"where":"(here|there)"|wait","arguments":\{"seconds":[1-9])\}'
expect "$(ask "\"tools\":$tools,\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"look\"}}")" '"name":"look","arguments":\{"where":"(here|there)"\}'
expect "$(ask "\"tools\":$tools,\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"fly\"}}")" 'a tool that is not in tools'
# A tool without parameters gets none, however that is said.
for parameters in ',"parameters":{"type":"object","properties":{}}' ',"parameters":{"type":"object"}' \
  ',"parameters":{}' ',"parameters":null' ''; do
  expect "$(ask '"tools":[{"type":"function","function":{"name":"now"'"$parameters"'}}],"tool_choice":"required"')" \
    '"name":"now","arguments":\{\}'
done
expect "$(curl -sS "$url/v1/messages" -d '{"model":"thinker","max_tokens":50,"messages":[{"role":"user","content":"Once"}],"tools":[{"name":"now","input_schema":{}}],"tool_choice":{"type":"any"}}')" '"name":"now","input":\{\}'
# Models that cannot think answer Anthropic's clients without.
expect "$(curl -sS "$url/v1/messages" -d '{"model":"stories260k","max_tokens":5,"thinking":{"type":"enabled","budget_tokens":1024},"messages":[{"role":"user","content":"Once"}]}')" '"type":"message"'
# A format is of the answer: what is thought before it goes free, and ends where the model would end all.
expect "$(ask '"format":{"enum":["red"]},"options":{"temperature":0,"num_predict":2000,"repeat_penalty":1.3}')" '"content":"\\"red\\"","thinking":"[^"]*[a-z]+[^"]*".*"done_reason":"stop"'
expect "$(ask '"format":{"enum":["red"]},"think":false')" '"content":"\\"red\\""\}'
expect "$(curl -sS "$url/v1/chat/completions" -d '{"model":"thinker","temperature":0,"max_tokens":2000,"frequency_penalty":1,"messages":[{"role":"user","content":"Once"}],"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"enum":["red"]}}}}')" \
  '"content":"\\"red\\"","reasoning":"[^"]*[a-z]+'

# ---- What must not end or block a runner
expect "$(generate '"options":{"num_thread":100000,"num_predict":2}')" '"done":true'
node_or_skip=$(command -v node || true)
if [ -n "$node_or_skip" ]; then
  node -e 'const long = "One day she went out. ".repeat(10);
    const messages = Array.from({length: 20001}, (_, i) => ({role: i % 2 ? "assistant" : "user", content: long}));
    console.log(JSON.stringify({model: "stories260k", stream: false, options: {num_predict: 2}, messages}))' >"$work/long.json"
  expect "$(curl -sS -m 60 "$url/api/chat" -d "@$work/long.json")" '"done":true'
fi
expect "$(curl -sS "$url/api/create" -d '{"model":"rendered","from":"stories260k","renderer":"nosuch","parser":"nosuch","stream":false}')" success
expect "$(curl -sS "$url/api/chat" -d '{"model":"rendered","messages":[{"role":"user","content":"a"}],"stream":false}')" 'built-in renderer .*nosuch.*not known'
stop_server
echo "format: ok"

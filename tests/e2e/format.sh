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
expect "$(generate '"format":{"not":{}}')" '"error":"invalid schema, at #: \\"not\\" is not supported"'
expect "$(generate '"format":"xml"')" '"error":"invalid format: \\"xml\\"'
status=$(curl -s -o /dev/null -w '%{http_code}' "$url/api/generate" -d '{"model":"stories260k","prompt":"a","format":{"enum":[]}}')
expect_same "$status" 400
expect_same "$("$OLLAMA" run stories260k Once --format 'root ::= "yes"')" yes
stop_server
echo "format: ok"

#!/usr/bin/env bash
# The bundled model, with no set-up, tells the story that llama.cpp tells: through the server, from a
# pipe, and streamed over HTTP; its file alone runs without a server.
. "$(dirname "$0")/lib.sh"

story=', there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily'"'"'s mom said, "Lily, let'"'"'s go to the park."'

starts_with_story() {
  case "$1" in
    "$story"*) ;;
    *) fail "$2: not the story: $1" ;;
  esac
}

start_server
starts_with_story "$("$OLLAMA" run stories260k 'Once upon a time')" "run with a prompt"
starts_with_story "$(printf 'Once upon a time' | "$OLLAMA" run stories260k)" "run from a pipe"

body='{"model":"stories260k","prompt":"Once upon a time","stream":false}'
answer=$(curl -fsS "$url/api/generate" -d "$body")
for field in model created_at response done done_reason context total_duration load_duration \
  prompt_eval_count prompt_eval_duration eval_count eval_duration; do
  expect "$answer" "\"$field\":"
done
expect "$answer" '"response":", there was a little girl named Lily\.'
expect "$answer" '"done":true,"done_reason":"(stop|length)"'
expect "$answer" '"prompt_eval_count":5[,}]'

# Streamed: the pieces joined are the same text, the last line has the figures.
streamed=$(curl -fsSN "$url/api/generate" -d '{"model":"stories260k","prompt":"Once upon a time"}')
[ "$(wc -l <<<"$streamed")" -gt 50 ] || fail "not streamed: $streamed"
joined=$(sed -n 's/.*"response":"\(.*\)","done":false.*/\1/p' <<<"$streamed" | tr -d '\n')
whole=$(sed -n 's/.*"response":"\(.*\)","done":true.*/\1/p' <<<"$answer")
expect_same "$joined" "$whole"
expect "$(tail -n 1 <<<"$streamed")" '"done":true.*"eval_count":[0-9]+'

chat=$(curl -fsS "$url/api/chat" -d '{"model":"stories260k","stream":false,"messages":[{"role":"user","content":"Once upon a time"}]}')
expect "$chat" '"message":\{"role":"assistant","content":", there was a little girl named Lily\.'
stop_server

# Without a server, from the file itself: with the usual temperature, so any story will do.
model=$(dirname "$OLLAMA")/../share/ollama.cpp/models/stories260K-f16.gguf
answer=$("$OLLAMA" run "$model" 'Once upon a time')
[ "${#answer}" -gt 20 ] || fail "run from a file: $answer"
echo "story: ok"

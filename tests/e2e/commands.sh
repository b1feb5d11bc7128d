#!/usr/bin/env bash
# The command line against a real server: create, list, show, cp, ps, stop, rm, version, and their errors.
. "$(dirname "$0")/lib.sh"

expect "$("$OLLAMA" list 2>&1 || true)" 'connect to'
start_server
expect "$("$OLLAMA" --version)" '0\.33\.0'
expect "$("$OLLAMA" list)" '^stories260k:latest +[0-9a-f]{12} +53[56] KB'

model=$(dirname "$OLLAMA")/../share/ollama.cpp/models/stories260K-f16.gguf
cp "$model" "$work/file.gguf"
cat >"$work/Modelfile" <<'TEXT'
FROM ./file.gguf
PARAMETER temperature 0
PARAMETER num_predict 12
PARAMETER stop "zebra"
SYSTEM """You tell
stories."""
TEMPLATE "{{ .Prompt }}"
TEXT
(cd "$work" && "$OLLAMA" create mine -f Modelfile >/dev/null 2>&1) || fail "create"
expect "$("$OLLAMA" list)" '^mine:latest'
expect "$("$OLLAMA" run mine 'Once upon a time')" '^, there was a little girl'
shown=$("$OLLAMA" show --modelfile mine)
expect "$shown" 'PARAMETER num_predict 12'
expect "$shown" 'PARAMETER stop zebra|PARAMETER stop "zebra"'
expect "$("$OLLAMA" show --system mine)" 'You tell'
expect "$("$OLLAMA" show --parameters mine)" 'temperature +0'
expect "$("$OLLAMA" show mine)" 'architecture +llama'
expect "$("$OLLAMA" show mine)" 'context length +512'

# The directory is laid out as Ollama's.
[ -f "$OLLAMA_MODELS/manifests/registry.ollama.ai/library/mine/latest" ] || fail "no manifest"
digest=$(sha256sum "$model" | cut -d' ' -f1)
cmp -s "$model" "$OLLAMA_MODELS/blobs/sha256-$digest" || fail "no blob of the model"

"$OLLAMA" cp mine yours >/dev/null 2>&1
expect "$("$OLLAMA" ps)" '^mine:latest .*CPU'
"$OLLAMA" stop mine
sleep 0.3
if "$OLLAMA" ps | grep -q '^mine'; then fail "stop leaves mine loaded"; fi
"$OLLAMA" rm mine >/dev/null 2>&1
[ -f "$OLLAMA_MODELS/blobs/sha256-$digest" ] || fail "rm took a blob that yours uses"
"$OLLAMA" rm yours >/dev/null 2>&1
[ ! -e "$OLLAMA_MODELS/blobs/sha256-$digest" ] || fail "rm leaves a blob that nobody uses"

# Errors: a message on standard error, exit code 1.
for arguments in "show nothing" "rm nothing" "cp nothing more" "rm stories260k" "nonsense" "run ./none.gguf x" \
  "create bad -f $work/none"; do
  # shellcheck disable=SC2086
  if "$OLLAMA" $arguments >"$work/out" 2>"$work/err" </dev/null; then fail "'$arguments' succeeds"; fi
  [ -s "$work/err" ] || fail "'$arguments' says nothing"
done
printf 'FROM ./file.gguf\nPARAMETER nonsense 1\n' >"$work/Bad"
if "$OLLAMA" create bad -f "$work/Bad" >/dev/null 2>"$work/err"; then fail "a bad parameter is taken"; fi
printf 'not a model' >"$work/broken.gguf"
if "$OLLAMA" run "$work/broken.gguf" hello >/dev/null 2>"$work/err"; then fail "a broken file runs"; fi
expect "$(cat "$work/err")" 'Error: .*broken\.gguf'

# A file that thinks, by its own template, does so without a server too, apart from its answer.
if command -v node >/dev/null; then
  mkdir "$work/scripted"
  node "$(dirname "$0")/../clients/scripted_model.mjs" "$work/scripted"
  thinks=$work/scripted/scripted.gguf
  expect_same "$("$OLLAMA" run "$thinks" greet 2>&1 | tr '\n' '|')" \
    'Thinking...|Hm, let me think.|...done thinking.||Hello, how are you?||'
  expect_same "$("$OLLAMA" run --hidethinking "$thinks" greet 2>/dev/null)" 'Hello, how are you?'
  expect_same "$("$OLLAMA" run --think=false "$thinks" greet 2>/dev/null)" 'Hello, how are you?'
  if "$OLLAMA" run --think "$work/file.gguf" hello >/dev/null 2>"$work/err"; then fail "what cannot think does"; fi
  expect "$(cat "$work/err")" 'does not support thinking'
fi
echo "commands: ok"

#!/usr/bin/env bash
# The debug family and bench, without a server: what they print is a contract.
. "$(dirname "$0")/lib.sh"

data=${TEST_DATA:?set TEST_DATA to tests/data}
expect_same "$("$OLLAMA" debug tokenize --model "$data/tokenizers/gpt-2.gguf" --text 'Hello world' --json)" \
  '{"tokens":[15496,995]}'
expect_same "$(printf 'Hello world' | "$OLLAMA" debug tokenize --model "$data/tokenizers/gpt-2.gguf" --text - --json)" \
  '{"tokens":[15496,995]}'
# Every text of the fixture, one array a line.
"$OLLAMA" debug tokenize --model "$data/tokenizers/gpt-2.gguf" --batch "$data/tokenizers/gpt-2.inp" >"$work/ids"
tr -d '[],' <"$work/ids" | tr -s ' ' | sed 's/^ //; s/ $//' >"$work/got"
sed 's/^ *//; s/ *$//' "$data/tokenizers/gpt-2.out" | tr -s ' ' >"$work/want"
if grep -q ',' "$work/ids"; then sed 's/\[//; s/\]//; s/, */ /g' "$work/ids" >"$work/got"; fi
diff "$work/got" "$work/want" >&2 || fail "debug tokenize --batch differs from the fixture"

logits=$("$OLLAMA" debug logits --model "$data/arch/llama.gguf" --tokens 1,2,3 --n-greedy 4 --json)
for key in tokens top5 last_logits greedy; do expect "$logits" "\"$key\":"; done
expect_same "$("$OLLAMA" debug logits --model "$data/arch/llama.gguf" --tokens 1,2,3 --n-greedy 4 --json --chunk 1 | grep -o '"greedy":\[[^]]*\]')" \
  "$(grep -o '"greedy":\[[^]]*\]' <<<"$logits")"

"$OLLAMA" debug make-model --shape tiny --type q4_0 --out "$work/tiny.gguf" >/dev/null 2>&1
"$OLLAMA" debug make-model --shape tiny --type q4_0 --out "$work/again.gguf" >/dev/null 2>&1
cmp "$work/tiny.gguf" "$work/again.gguf" || fail "make-model is not deterministic"
bench=$("$OLLAMA" bench --model "$work/tiny.gguf" -p 16 -n 8 -r 1 --json)
for key in kernels model type threads n_prompt n_gen depth parallel pp_tok_s tg_tok_s pp_min pp_max tg_min tg_max; do
  expect "$bench" "\"$key\":"
done
expect "$("$OLLAMA" bench --model "$work/tiny.gguf" -p 16 -n 0 -r 1 --json)" '"tg_tok_s": ?null'
expect "$("$OLLAMA" bench --model "$work/tiny.gguf" -p 0 -n 4 -r 1 --parallel 4 --json)" '"pp_tok_s": ?null'
"$OLLAMA" bench --model "$work/tiny.gguf" -p 16 -n 8 -d 32 -r 1 >/dev/null
rows=$("$OLLAMA" debug tensors --model "$data/arch/llama.gguf" --filter '^(logits|attn_norm-[01])$' --json)
expect_same "$(grep -o '"name":"[^"]*"' <<<"$rows" | tr '\n' ' ')" \
  '"name":"attn_norm-0" "name":"attn_norm-1" "name":"logits" '
"$OLLAMA" debug tensors --model "$data/arch/llama.gguf" --filter '(' 2>"$work/errors" && fail "a broken filter was taken"
grep -q "'(' is no regular expression" "$work/errors" || fail "a broken filter: $(cat "$work/errors")"
stats=$("$OLLAMA" debug stats --model "$data/arch/llama.gguf" -n 20 --json)
# A graph for the prompt and one for what follows; inputs go up once a step.
grep -q '"steps":20,"graph_builds":2,' <<<"$stats" || fail "debug stats: $stats"
grep -q '"uploads":20,' <<<"$stats" || fail "debug stats: $stats"

printf '{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }} {{ currentDate }}' >"$work/chat.gotmpl"
echo '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}' >"$work/chat.json"
expect_same "$("$OLLAMA" debug render --template "$work/chat.gotmpl" --kind go --data "$work/chat.json" --now 2026-11-23T09:30)" \
  '<user>Hi<assistant>Ho 2026-11-23'
printf '{{ index .List 1 }}' >"$work/data.gotmpl"
echo '{"List": ["a", "b"]}' >"$work/data.json"
expect_same "$("$OLLAMA" debug render --template "$work/data.gotmpl" --kind go --data "$work/data.json")" 'b'
printf 'a\n{{ nosuch }}' >"$work/broken.gotmpl"
"$OLLAMA" debug render --template "$work/broken.gotmpl" --kind go --data "$work/data.json" 2>"$work/errors" &&
  fail "a broken template was rendered"
grep -q 'template:2:4: ' "$work/errors" || fail "a broken template: $(cat "$work/errors")"

expect_same "$("$OLLAMA" debug render --template qwen3-coder --kind renderer --data "$work/chat.json")" \
  $'<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo'
"$OLLAMA" debug render --template nosuch --kind renderer --data "$work/chat.json" 2>"$work/errors" &&
  fail "a renderer that is not there rendered"
grep -q 'the built-in renderer "nosuch" is not known; those that are: ' "$work/errors" ||
  fail "an unknown renderer: $(cat "$work/errors")"

echo "debug: ok"

#!/usr/bin/env bash
# Two machines lend their devices: a model is spread over both, gives the CPU's tokens, and when one is
# lost in the middle of an answer its client hears why and the next request goes on without it.
. "$(dirname "$0")/lib.sh"

lenders=()
# lend NAME: starts a lender on a free port; $address is where
lend() {
  local attempt
  for attempt in 1 2 3 4 5; do
    address="127.0.0.1:$((20000 + RANDOM % 20000))"
    "$OLLAMA" rpc --listen "$address" >"$work/$1.log" 2>&1 &
    lenders+=($!)
    for _ in $(seq 200); do
      grep -q "listening on" "$work/$1.log" && return 0
      if grep -q "not installed" "$work/$1.log"; then
        echo "GGML's RPC backend is not installed" && exit 77
      fi
      kill -0 "${lenders[-1]}" 2>/dev/null || break
      sleep 0.02
    done
  done
  cat "$work/$1.log" >&2
  fail "no lender starts"
}
stop_lenders() { kill "${lenders[@]}" 2>/dev/null || true; }
trap 'stop_lenders; cleanup' EXIT

lend first
first=$address
lend second
second=$address
export OLLAMA_SCHED_SPREAD=1

table=$(OLLAMA_RPC_SERVERS="$first,$second" "$OLLAMA" debug devices)
expect "$table" "^RPC0 +gpu +rpc +$first "
expect "$table" "^RPC1 +gpu +rpc +$second "

# The same tokens as on the CPU, from either half of each model.
for model in llama gemma2 qwen3moe; do
  logits=("$OLLAMA" debug logits --model "$TEST_DATA/arch/$model.gguf" --tokens 1,2,3,4,5 --n-greedy 12)
  alone=$("${logits[@]}" | grep greedy)
  spread=$(OLLAMA_RPC_SERVERS="$first,$second" "${logits[@]}" --num-gpu -1 | grep greedy)
  expect_same "$spread" "$alone"
done

# What is no RPC server, or nothing at all, is left out with a warning.
start_server
table=$(OLLAMA_RPC_SERVERS="$first,localhost:${first#*:},$OLLAMA_HOST,127.0.0.1:1,nonsense" "$OLLAMA" debug devices 2>"$work/errors")
[ "$(grep -c '^RPC' <<<"$table")" = 1 ] || fail "one lender by two names: $table"
expect "$(cat "$work/errors")" "$OLLAMA_HOST"
expect "$(cat "$work/errors")" "nonsense"
stop_server

# A lender that is busy outlives those that gave up waiting for it.
exec {held}<>"/dev/tcp/${first%:*}/${first#*:}"
table=$(OLLAMA_RPC_SERVERS="$first,$second,$second" "$OLLAMA" debug devices 2>"$work/errors")
expect "$(cat "$work/errors")" "$first"
[ "$(grep -c '^RPC' <<<"$table")" = 1 ] || fail "one lender is free, and named twice: $table"
exec {held}>&-
for _ in $(seq 100); do
  OLLAMA_RPC_SERVERS="$first" "$OLLAMA" debug devices 2>/dev/null | grep -q '^RPC' && break
  kill -0 "${lenders[0]}" || fail "the lender died of a client that left"
  sleep 0.05
done
kill -0 "${lenders[0]}" || fail "the lender died of a client that left"

# A lender that is lost ends the answer, not the server.
start_server OLLAMA_RPC_SERVERS="$first,$second"
plan=$("$OLLAMA" show --plan stories260k)
expect "$plan" "^6 of 6 layers on GPUs"
expect "$plan" "^RPC0 "
expect "$plan" "^RPC1 "
expect "$(curl -fsS "$url/api/generate" -d '{"model":"stories260k","prompt":"Once upon a time","stream":false}')" 'Lily'
expect "$("$OLLAMA" ps)" "100% GPU"
long='{"model":"stories260k","prompt":"Once upon a time","options":{"num_predict":200000,"temperature":1.5,"stop":[],"repeat_penalty":1.3}}'
curl -sN "$url/api/generate" -d "$long" >"$work/answer" &
reader=$!
for _ in $(seq 500); do
  [ -s "$work/answer" ] && break
  sleep 0.02
done
# The system watches the connection: a machine that is gone is not waited for.
if command -v ss >/dev/null; then
  for _ in $(seq 500); do
    watched=$(ss -tno dst "$second")
    grep -q 'timer:(keepalive' <<<"$watched" && break
    sleep 0.01
  done
  expect "$watched" 'timer:\(keepalive'
fi
kill -9 "${lenders[0]}"
wait "$reader" || true
expect "$(tail -n 1 "$work/answer")" 'OLLAMA_RPC_SERVERS that holds a part of the model was lost'
expect "$(curl -fsS "$url/api/generate" -d '{"model":"stories260k","prompt":"Once upon a time","stream":false}')" 'Lily'
"$OLLAMA" stop stories260k  # a lender serves one program at a time
plan=$("$OLLAMA" show --plan stories260k)
expect "$plan" "^6 of 6 layers on GPUs"
[ "$(grep -c '^RPC' <<<"$plan")" = 1 ] || fail "one lender is left: $plan"
stop_server

# Models that are loaded at once get in each other's way nowhere: the second does without the lender
# that the first has.
start_server OLLAMA_RPC_SERVERS="$second" OLLAMA_LOAD_TIMEOUT=60s
"$OLLAMA" cp stories260k other
answers=()
for model in stories260k other; do
  curl -fsS -m 100 "$url/api/generate" -d "{\"model\":\"$model\",\"prompt\":\"Once upon a time\",\"stream\":false}" >"$work/$model.json" &
  answers+=($!)
done
for answer in "${answers[@]}"; do wait "$answer" || fail "two loads at once: one is not answered"; done
expect "$(cat "$work/stories260k.json")" 'Lily'
expect "$(cat "$work/other.json")" 'Lily'
table=$("$OLLAMA" ps)
expect "$table" "100% GPU"
expect "$table" "100% CPU"
stop_server
kill -9 "${lenders[1]}"

# One that greets and then falls silent is found out, and the model is loaded without it; a plan too
# ends.
"$SILENT_LENDER" >"$work/silent" &
lenders+=($!)
for _ in $(seq 100); do [ -s "$work/silent" ] && break; sleep 0.02; done
start_server OLLAMA_RPC_SERVERS="$(cat "$work/silent")"
expect "$(curl -fsS -m 100 "$url/api/generate" -d '{"model":"stories260k","prompt":"Once upon a time","stream":false}')" 'Lily'
expect "$(cat "$work/server.log")" 'trying again without OLLAMA_RPC_SERVERS'
if plan=$("$OLLAMA" show --plan stories260k 2>&1); then fail "a plan with a silent lender: $plan"; fi
expect "$plan" 'lost'
echo "rpc: ok"

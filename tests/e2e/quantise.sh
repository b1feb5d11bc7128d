#!/usr/bin/env bash
# Quantising: every type runs and is what it says; the process that does it can be killed, and clients can go away;
# nothing is left behind.
. "$(dirname "$0")/lib.sh"

model=$(dirname "$OLLAMA")/../share/ollama.cpp/models/stories260K-f16.gguf
left() { find "$OLLAMA_MODELS/blobs" -name '.tmp-*'; }
converters() { ps -o pid=,args= --ppid "$server_pid" | awk '/ convert /{print $1}'; }
# wait_for COMMAND...: until it succeeds, at most ten seconds
wait_for() {
  for _ in $(seq 500); do
    "$@" && return 0
    sleep 0.02
  done
  return 1
}
converting() { [ -n "$(converters)" ]; }
not_converting() { [ -z "$(converters)" ]; }
nothing_left() { [ -z "$(left)" ]; }

start_server
printf 'FROM %s\nTEMPLATE "{{ .Prompt }}"\nPARAMETER temperature 0\nPARAMETER num_predict 40\n' "$model" >"$work/Modelfile"
for type in q8_0 bf16 f32 q6_K q5_K_M q5_K_S q5_1 q5_0 q4_K_M q4_K_S q4_1 q4_0 IQ4_NL; do
  "$OLLAMA" create "small-$type" -q "$type" -f "$work/Modelfile" >/dev/null 2>"$work/err" || fail "create -q $type: $(cat "$work/err")"
  expect "$(cat "$work/err")" "quantizing F16 model to ${type^^}"
  expect "$("$OLLAMA" show "small-$type")" "quantization +${type^^}"
  text=$("$OLLAMA" run "small-$type" 'Once upon a time')
  case $type in
    q8_0 | bf16 | f32) expect "$text" '^, there was a little girl named Lily' ;;
    *) expect "$text" '(there|was|the|She|he) ' ;;
  esac
done
expect "$(curl -fsS "$url/api/tags")" '"name":"small-q4_K_M:latest".*"quantization_level":"Q4_K_M"'
wait_for nothing_left || fail "left behind: $(left)"

# Errors.
if "$OLLAMA" create bad -q q9 -f "$work/Modelfile" 2>"$work/err"; then fail "q9 is taken"; fi
expect "$(cat "$work/err")" "unsupported quantization type 'q9'.*Q4_K_M"
[ "$(curl -s -o "$work/answer" -w '%{http_code}' "$url/api/create" -d '{"model":"bad","from":"stories260k","quantize":"q9"}')" = 400 ] ||
  fail "an unknown type does not answer 400"
expect "$(curl -s "$url/api/create" -d '{"model":"bad","from":"small-q8_0","quantize":"q4_0","stream":false}')" \
  'quantization is only supported for F16, BF16 and F32 models'

# A model that takes some seconds: one matrix of 64 Mi weights, all of them small numbers.
u32() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 24)))"; }
u64() { u32 "$1" && u32 0; }
text() { u64 ${#1} && printf %s "$1"; }
{
  printf GGUF && u32 3 && u64 1 && u64 2
  text general.architecture && u32 8 && text llama
  text general.file_type && u32 4 && u32 1
  text blk.0.ffn_up.weight && u32 2 && u64 256 && u64 262144 && u32 1 && u64 0
} >"$work/large.gguf"
truncate -s %32 "$work/large.gguf"
# shellcheck disable=SC2216
(yes 0123456789 2>/dev/null || true) | head -c $((256 * 262144 * 2)) >>"$work/large.gguf"
printf 'FROM ./large.gguf\n' >"$work/Large"
"$OLLAMA" create large -f "$work/Large" >/dev/null 2>&1 || fail "create large"
slow='{"model":"slow","from":"large","quantize":"IQ4_NL"}'

# Killed: an error that says so, and the server goes on.
curl -sN "$url/api/create" -d "$slow" >"$work/answer" &
client=$!
wait_for converting || fail "no process converts"
expect "$(curl -fsS -m 5 "$url/api/tags")" '"name":"large:latest"'
kill -9 "$(converters)"
wait "$client"
expect "$(tail -n 1 "$work/answer")" '"error":"the process that converts the model ended unexpectedly \(signal 9: Killed\)'
expect "$(cat "$work/answer")" '"status":"quantizing F16 model to IQ4_NL"'
wait_for nothing_left || fail "left behind by a killed process: $(left)"
expect "$(curl -fsS "$url/api/generate" -d '{"model":"stories260k","prompt":"Once upon a time","stream":false}')" 'Lily'

# The client goes away: the process ends.
curl -sN "$url/api/create" -d "$slow" >/dev/null &
client=$!
wait_for converting || fail "no process converts the second time"
kill "$client"
wait "$client" 2>/dev/null || true
wait_for not_converting || fail "the process outlives its client"
wait_for nothing_left || fail "left behind by a client that went away: $(left)"

# The server is killed: the process ends with it, and the next server cleans up.
curl -sN "$url/api/create" -d "$slow" >/dev/null &
client=$!
wait_for converting || fail "no process converts the third time"
pid=$(converters)
kill -9 "$server_pid"
wait "$server_pid" 2>/dev/null || true
wait "$client" || true
gone() { ! kill -0 "$pid" 2>/dev/null; }
wait_for gone || fail "process $pid outlives the server"
start_server
wait_for nothing_left || fail "left behind by a server that was killed: $(left)"
if "$OLLAMA" show slow >/dev/null 2>&1; then fail "a model that was never made is there"; fi

# A disk that is full: the process may write no file of more than 20 MB.
stop_server
ulimit -S -f 20000
start_server
ulimit -S -f "$(ulimit -H -f)"
expect "$(curl -sN "$url/api/create" -d '{"model":"slow","from":"large","quantize":"q8_0"}')" '"error":".*File too large'
expect "$(curl -fsS "$url/api/version")" version
wait_for nothing_left || fail "left behind by a full disk: $(left)"
echo "quantise: ok"

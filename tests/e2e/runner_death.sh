#!/usr/bin/env bash
# A runner that is killed in the middle of an answer gives its client an error; the server and the next
# request go on. A server that ends leaves no runner behind.
. "$(dirname "$0")/lib.sh"

start_server
long='{"model":"stories260k","prompt":"Once upon a time","options":{"num_predict":200000,"temperature":1.5,"stop":[],"repeat_penalty":1.3}}'
# A slow reader keeps the answer going while its runner is killed.
(curl -sN --limit-rate 2k "$url/api/generate" -d "$long" >"$work/answer" || true) &
reader=$!
for _ in $(seq 200); do
  pid=$(runner_pids | tr -d ' ' | tail -n 1)
  [ -n "$pid" ] && [ -s "$work/answer" ] && break
  sleep 0.02
done
[ -n "${pid:-}" ] || fail "no runner was started"
kill -9 "$pid" 2>/dev/null || true
wait "$reader"
expect "$(tail -n 1 "$work/answer")" '"error":|"done":true'
kill -0 "$server_pid" || fail "the server is gone"
expect "$(curl -fsS "$url/api/generate" -d '{"model":"stories260k","prompt":"Once upon a time","stream":false}')" 'Lily'

pid=$(runner_pids | tr -d ' ' | head -n 1)
[ -n "$pid" ] || fail "no runner serves the second request"
stop_server
for _ in $(seq 250); do
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.02
done
kill -0 "$pid" 2>/dev/null && fail "runner $pid outlives the server"
echo "runner death: ok"

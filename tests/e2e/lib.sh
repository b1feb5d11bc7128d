# What the end-to-end tests share: a server of their own on a free loopback port with an empty models
# folder, ended by process id. Sourced with OLLAMA set to the program under test.
set -euo pipefail

: "${OLLAMA:?set OLLAMA to the ollama program}"
work=$(mktemp -d)
server_pid=
export HOME="$work/home" OLLAMA_MODELS="$work/models" OLLAMA_NOHISTORY=1
unset OLLAMA_CONTEXT_LENGTH OLLAMA_NUM_PARALLEL OLLAMA_KEEP_ALIVE OLLAMA_ORIGINS OLLAMA_DEBUG
mkdir -p "$HOME" "$OLLAMA_MODELS"

fail() {
  echo "FAILED: $*" >&2
  [ -s "$work/server.log" ] && tail -n 20 "$work/server.log" >&2
  exit 1
}

# expect TEXT PATTERN: the pattern (an extended regular expression) is found in the text
expect() { grep -qE -- "$2" <<<"$1" || fail "expected /$2/ in: $1"; }
# expect_same TEXT TEXT
expect_same() { [ "$1" = "$2" ] || fail "expected '$2', got '$1'"; }

# start_server [VARIABLE=VALUE...]: a server that listens when this returns; $url is its address
start_server() {
  local attempt
  for attempt in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 20000))
    export OLLAMA_HOST="127.0.0.1:$port"
    url="http://$OLLAMA_HOST"
    env "$@" "$OLLAMA" serve >"$work/server.log" 2>&1 &
    server_pid=$!
    for _ in $(seq 300); do
      curl -fs -o /dev/null "$url/" && return 0
      kill -0 "$server_pid" 2>/dev/null || break
      sleep 0.02
    done
    stop_server
  done
  fail "the server does not start"
}

stop_server() {
  [ -n "$server_pid" ] || return 0
  kill "$server_pid" 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}

# runner_pids: the processes that the server started
runner_pids() { ps -o pid= --ppid "$server_pid" || true; }

cleanup() {
  local code=$?
  stop_server
  rm -rf "$work"
  exit "$code"
}
trap cleanup EXIT

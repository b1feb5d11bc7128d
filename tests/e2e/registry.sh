#!/usr/bin/env bash
# Pulling and pushing against a real registry (Debian's docker-registry): a round trip, breaks and resuming,
# a damaged blob, a missing tag, a full disk, proxies, TLS, and names of Hugging Face.
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)

for program in docker-registry node openssl; do
  command -v "$program" >/dev/null && continue
  echo "registry: skipped: $program is not installed"
  exit 77
done

others=()
# shellcheck disable=SC2329
stop_others() {
  local code=$?
  for pid in "${others[@]}"; do kill "$pid" 2>/dev/null || true; done
  stop_server
  rm -rf "$work"
  exit "$code"
}
trap stop_others EXIT

# ---- A registry, and a proxy before it
start_registry() {
  for _ in 1 2 3 4 5; do
    registry_port=$((20000 + RANDOM % 20000))
    cat >"$work/registry.yml" <<TEXT
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: "$work/registry"}}
http: {addr: "127.0.0.1:$registry_port"}
TEXT
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    registry_pid=$!
    for _ in $(seq 200); do
      if curl -fs -o /dev/null "http://127.0.0.1:$registry_port/v2/"; then
        others+=("$registry_pid")
        return 0
      fi
      kill -0 "$registry_pid" 2>/dev/null || break
      sleep 0.05
    done
    kill "$registry_pid" 2>/dev/null || true
  done
  fail "the registry does not start: $(cat "$work/registry.log")"
}
start_registry
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hf.co -addext subjectAltName=DNS:hf.co \
  -keyout "$work/key.pem" -out "$work/certificate.pem" 2>/dev/null
node "$here/proxy.mjs" "$registry_port" "$work/certificate.pem" "$work/key.pem" >"$work/proxy.port" &
others+=($!)
for _ in $(seq 200); do
  if [ -s "$work/proxy.port" ]; then break; fi
  sleep 0.05
done
proxy="http://127.0.0.1:$(cat "$work/proxy.port")"
# control [QUERY]: the blobs' bytes since the last time
control() { curl -fs "$proxy/control?${1:-}" | sed 's/.*"bytes":\([0-9]*\).*/\1/'; }

direct="127.0.0.1:$registry_port/test/story:v1"
proxied="registry.test/test/big:v1" # a host that only the proxy knows

# ---- A model of 24 MB more than it needs, so that there is something to break
model=$(dirname "$OLLAMA")/../share/ollama.cpp/models/stories260K-f16.gguf
cp "$model" "$work/big.gguf"
head -c 24000000 /dev/urandom >>"$work/big.gguf"
printf 'FROM %s\nPARAMETER temperature 0\nPARAMETER num_predict 6\nSYSTEM "Be brief."\nLICENSE free\n' "$model" >"$work/Story"
printf 'FROM %s\n' "$work/big.gguf" >"$work/Big"

start_server HTTP_PROXY="$proxy" HTTPS_PROXY="$proxy"
"$OLLAMA" create "$direct" -f "$work/Story" >/dev/null 2>&1 || fail "create"
"$OLLAMA" create "$proxied" -f "$work/Big" >/dev/null 2>&1 || fail "create"

# ---- Push
"$OLLAMA" push "$direct" >"$work/out" 2>"$work/err" && fail "http is used without --insecure"
[ -s "$work/err" ] || fail "a failing push says nothing"
pushed=$("$OLLAMA" push --insecure "$direct" 2>&1) || fail "push: $pushed"
expect "$pushed" '^retrieving manifest'
expect "$pushed" '^pushing [0-9a-f]{12}:'
expect "$pushed" '^success'
expect "$pushed" "$direct"
"$OLLAMA" push --insecure "$direct" >/dev/null 2>&1 || fail "a second push"
"$OLLAMA" push --insecure "$proxied" >/dev/null 2>&1 || fail "push through the proxy"
expect "$(curl -fs "$proxy/control")" '"registry.test"'
id=$("$OLLAMA" list | awk -v name="$direct" '$1 == name { print $2 }')
stop_server
mv "$OLLAMA_MODELS" "$work/pushed"

# ---- Pull into an empty directory
start_server HTTP_PROXY="$proxy" HTTPS_PROXY="$proxy"
pulled=$("$OLLAMA" pull --insecure "$direct" 2>&1) || fail "pull: $pulled"
for status in 'pulling manifest' 'pulling [0-9a-f]{12}:' 'verifying sha256 digest' 'writing manifest' success; do
  expect "$pulled" "^$status"
done
for blob in "$OLLAMA_MODELS"/blobs/*; do
  cmp "$blob" "$work/pushed/blobs/$(basename "$blob")" || fail "another blob came back"
done
expect_same "$(find "$OLLAMA_MODELS/blobs" -type f | wc -l)" 5
cmp "$OLLAMA_MODELS/manifests/127.0.0.1:$registry_port/test/story/v1" \
  "$work/pushed/manifests/127.0.0.1:$registry_port/test/story/v1" || fail "another manifest came back"
expect_same "$("$OLLAMA" list | awk -v name="$direct" '$1 == name { print $2 }')" "$id"
expect "$("$OLLAMA" run "$direct" 'Once upon a time')" 'there was'
expect_same "$(curl -fs "$url/api/pull" -d "{\"model\":\"$direct\",\"insecure\":true,\"stream\":false}")" \
  '{"status":"success"}'

# ---- What is not there
"$OLLAMA" pull --insecure "127.0.0.1:$registry_port/test/story:none" >/dev/null 2>"$work/err" && fail "a missing tag"
expect "$(cat "$work/err")" 'pull model manifest: file does not exist'

# ---- Breaks: the pull goes on by itself
control >/dev/null
control breaks=2 >/dev/null
"$OLLAMA" pull --insecure "$proxied" >/dev/null 2>"$work/err" || fail "a pull with breaks: $(cat "$work/err")"
expect_same "$(sha256sum <"$work/big.gguf")" "$(sha256sum <"$OLLAMA_MODELS/blobs/sha256-$(sha256sum "$work/big.gguf" | cut -d' ' -f1)")"
bytes=$(control)
[ "$bytes" -lt 25000000 ] || fail "what had come before a break was fetched again: $bytes bytes"
"$OLLAMA" rm "$proxied" >/dev/null 2>&1

# ---- The client goes: the download stops and stays; the server is killed: the next one goes on
partials() { find "$OLLAMA_MODELS/blobs" -name '*-partial' | wc -l; }
control hold=1 >/dev/null
"$OLLAMA" pull --insecure "$proxied" >/dev/null 2>&1 &
client=$!
wait_for() { for _ in $(seq 400); do if eval "$1"; then return 0; fi; sleep 0.05; done; fail "never: $1"; }
saved() { grep -ohE '"Completed":[0-9]+' "$OLLAMA_MODELS"/blobs/*-partial-0 2>/dev/null | cut -d: -f2; }
# shellcheck disable=SC2016
wait_for '[ "$(saved)" -gt 4000000 ] 2>/dev/null'
kill "$client"
wait "$client" 2>/dev/null || true
sleep 0.5
expect_same "$(partials)" 1
expect_same "$("$OLLAMA" list | grep -c registry.test)" 0
control hold=1 >/dev/null
"$OLLAMA" pull --insecure "$proxied" >/dev/null 2>&1 &
client=$!
before=$(saved)
wait_for "[ \"\$(saved)\" -gt $((before + 4000000)) ]"
kill -9 "$server_pid"
wait "$server_pid" 2>/dev/null || true
wait "$client" 2>/dev/null || true
start_server HTTP_PROXY="$proxy" HTTPS_PROXY="$proxy"
expect_same "$(partials)" 1
left=$((24535936 - $(saved)))
control hold=0 >/dev/null
"$OLLAMA" pull --insecure "$proxied" >/dev/null 2>"$work/err" || fail "resuming: $(cat "$work/err")"
bytes=$(control)
[ "$bytes" -lt $((left + 100000)) ] || fail "resuming fetched $bytes bytes, $left were missing"
expect_same "$(partials)" 0
expect_same "$(find "$OLLAMA_MODELS/blobs" -name '*partial*' | wc -l)" 0

# ---- Two at once share a download
"$OLLAMA" rm "$proxied" >/dev/null 2>&1
control hold=1 >/dev/null # and forgets what was counted
"$OLLAMA" pull --insecure "$proxied" >"$work/one" 2>&1 &
one=$!
"$OLLAMA" pull --insecure "$proxied" >"$work/two" 2>&1 &
two=$!
# shellcheck disable=SC2016
wait_for 'grep -q "pulling [0-9a-f]*:" "$work/one" && grep -q "pulling [0-9a-f]*:" "$work/two"'
bytes=$(control hold=0)
wait "$one" || fail "one: $(cat "$work/one")"
wait "$two" || fail "two: $(cat "$work/two")"
bytes=$((bytes + $(control)))
[ "$bytes" -lt 25000000 ] || fail "two pulls fetched $bytes bytes"

# ---- A name of Hugging Face's, by https through a proxy, with a certificate that only SSL_CERT_FILE knows
curl -fs "http://127.0.0.1:$registry_port/v2/test/story/manifests/v1" \
  -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' >"$work/manifest"
grep -oE 'sha256:[0-9a-f]{64}' "$work/manifest" | sort -u | while read -r digest; do
  # Another repository of the registry takes them over.
  curl -fs -o /dev/null -X POST "http://127.0.0.1:$registry_port/v2/someone/story-gguf/blobs/uploads/?mount=$digest&from=test/story"
done
curl -fs -o /dev/null -X PUT --data-binary "@$work/manifest" \
  -H 'Content-Type: application/vnd.docker.distribution.manifest.v2+json' \
  "http://127.0.0.1:$registry_port/v2/someone/story-gguf/manifests/q4_k_m"
"$OLLAMA" pull hf.co/Someone/Story-GGUF:Q4_K_M >/dev/null 2>"$work/err" && fail "an unknown certificate is trusted"
expect "$(cat "$work/err")" '[Cc]ertificate'
stop_server
start_server HTTPS_PROXY="$proxy" SSL_CERT_FILE="$work/certificate.pem"
"$OLLAMA" pull hf.co/Someone/Story-GGUF:Q4_K_M >/dev/null 2>"$work/err" || fail "hf.co: $(cat "$work/err")"
expect "$(curl -fs "$proxy/control")" '"hf.co:443"'
expect "$("$OLLAMA" run hf.co/Someone/Story-GGUF:Q4_K_M 'Once upon a time')" 'there was'
stop_server

# ---- A blob that is damaged on the registry
hex=$(sha256sum "$model" | cut -d' ' -f1)
printf 'X' | dd of="$work/registry/docker/registry/v2/blobs/sha256/${hex:0:2}/$hex/data" bs=1 seek=400000 conv=notrunc 2>/dev/null
rm -rf "$OLLAMA_MODELS"
start_server
"$OLLAMA" pull --insecure "$direct" >/dev/null 2>"$work/err" && fail "a damaged blob is taken"
expect "$(cat "$work/err")" "digest mismatch, file must be downloaded again: want sha256:$hex"
expect_same "$(find "$OLLAMA_MODELS" -name "*$hex*" | wc -l)" 0
if "$OLLAMA" list | grep -q "$direct"; then fail "a damaged model is listed"; fi
stop_server

# ---- A full disk: a file system of 8 MB, where one may be mounted
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
  mkdir -p "$work/small"
  export OLLAMA_MODELS="$work/small/models"
  # shellcheck disable=SC2016
  env -u HTTP_PROXY unshare -m bash -c '
    mount -t tmpfs -o size=8m none "$1" || exit 77
    HTTP_PROXY="$2" "$OLLAMA" serve >"$3" 2>&1 & server=$!
    for _ in $(seq 300); do curl -fs -o /dev/null "http://$OLLAMA_HOST/" && break; sleep 0.02; done
    "$OLLAMA" pull --insecure "$4" 2>&1; code=$?
    kill "$server"; wait "$server"
    echo "left: $(find "$1" -type f | wc -l)"
    exit "$code"' x "$work/small" "$proxy" "$work/server.log" "$proxied" >"$work/out" 2>&1 && fail "a full disk is not noticed"
  expect "$(cat "$work/out")" 'no space left on device: 2[45] MB more are needed'
  expect "$(cat "$work/out")" 'left: 0'
fi
echo "registry: ok"

#!/usr/bin/env bash
# The models' folder by hand: Modelfiles from standard input and in UTF-16, what show prints made again,
# a folder as Ollama lays it out, pruning, a server that is killed, two servers at once, links.
. "$(dirname "$0")/lib.sh"

model=$(dirname "$OLLAMA")/../share/ollama.cpp/models/stories260K-f16.gguf
blobs=$OLLAMA_MODELS/blobs
library=$OLLAMA_MODELS/manifests/registry.ollama.ai/library
prompt='Once upon a time'

# blob FILE: puts it where Ollama would; prints its digest
blob() {
  local digest
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  mkdir -p "$blobs" && cp "$1" "$blobs/sha256-$digest"
  echo "sha256:$digest"
}
# layer TYPE FILE: its entry in a manifest
layer() {
  printf '{"mediaType":"application/vnd.%s","digest":"%s","size":%s}' "$1" "$(blob "$2")" "$(stat -c %s "$2")"
}

# A folder that Ollama made, without our help.
printf '{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"260K","file_type":"F16"}' >"$work/config"
printf '{{ .Prompt }}' >"$work/template"
printf '{"num_predict":8,"temperature":0}\n' >"$work/params"
mkdir -p "$library/theirs"
printf '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":%s,"layers":[%s,%s,%s]}' \
  "$(layer docker.container.image.v1+json "$work/config")" "$(layer ollama.image.model "$model")" \
  "$(layer ollama.image.template "$work/template")" "$(layer ollama.image.params "$work/params")" >"$library/theirs/latest"
echo unused >"$work/unused"
old=$blobs/$(blob "$work/unused" | tr : -)
echo young >"$work/young"
young=$blobs/$(blob "$work/young" | tr : -)
touch -d '2 hours ago' "$blobs"/sha256-* && touch "$young"

start_server OLLAMA_NOPRUNE=1
[ -f "$old" ] || fail "OLLAMA_NOPRUNE prunes"
id=$(sha256sum "$library/theirs/latest" | cut -c1-12)
expect "$("$OLLAMA" list)" "^theirs:latest +$id"
expect "$("$OLLAMA" show theirs)" 'quantization +F16'
expect "$("$OLLAMA" run theirs "$prompt")" '^, there was'
stop_server
start_server
[ ! -e "$old" ] || fail "an old blob that nothing uses stays"
[ -f "$young" ] || fail "a blob of this minute goes"
expect "$("$OLLAMA" run theirs "$prompt")" '^, there was'

# Modelfiles.
printf 'FROM theirs\nSYSTEM """two\nlines"""\nPARAMETER stop "### User"\nMESSAGE user Hi\nLICENSE mine\nREQUIRES 0.14.0\n' |
  "$OLLAMA" create mine -f - >/dev/null 2>&1 || fail "create -f -"
expect_same "$("$OLLAMA" show --system mine)" 'two
lines'
"$OLLAMA" show --modelfile mine >"$work/shown"
"$OLLAMA" create again -f "$work/shown" >/dev/null 2>&1 || fail "what show prints cannot be made"
"$OLLAMA" show --modelfile again | grep -v '^#' >"$work/again"
grep -v '^#' "$work/shown" | cmp -s - "$work/again" || fail "show --modelfile does not round-trip"
printf 'FROM theirs\r\nSYSTEM \xc3\xa9\r\n' | iconv -f UTF-8 -t UTF-16 >"$work/utf16"
"$OLLAMA" create wide -f "$work/utf16" >/dev/null 2>&1 || fail "a Modelfile in UTF-16"
expect_same "$("$OLLAMA" show --system wide)" 'é'
printf 'FROM theirs\n\nPARAMETER top_k many\n' >"$work/bad"
"$OLLAMA" create bad -f "$work/bad" 2>"$work/err" && fail "a bad parameter is taken"
expect "$(cat "$work/err")" '\(line 3\)'
expect "$(curl -s "$url/api/create" -d '{"model":"bad","modelfile":"FROM theirs"}')" 'no longer accepted'

# A link that leads out is not followed.
echo precious >"$work/outside"
mkdir -p "$library/link"
ln -s "$work/outside" "$library/link/latest"
"$OLLAMA" show link 2>"$work/err" && fail "a link out of the folder is read"
expect "$(cat "$work/err")" 'leads out of'
expect "$("$OLLAMA" list 2>&1)" '^theirs:latest'
"$OLLAMA" rm link >/dev/null
expect_same "$(cat "$work/outside")" precious

# Two servers on one folder: what one makes, the other has, and neither takes the other's blobs.
first_pid=$server_pid first_host=$OLLAMA_HOST
start_server
printf 'FROM mine\nSYSTEM other\n' | "$OLLAMA" create other -f - >/dev/null 2>&1 || fail "create on the second"
expect_same "$(OLLAMA_HOST=$first_host "$OLLAMA" show --system other)" other
for name in mine again wide; do OLLAMA_HOST=$first_host "$OLLAMA" rm "$name" >/dev/null; done
expect "$("$OLLAMA" run other "$prompt")" '^, there was'
kill "$first_pid" && wait "$first_pid" 2>/dev/null || true

# A server that is killed while it makes and removes models leaves none that is broken.
for round in 1 2 3 4 5; do
  (while curl -fs -o /dev/null "$url/api/create" -d '{"model":"loop","from":"other","system":"'$RANDOM'"}' &&
    curl -fs -o /dev/null -X DELETE "$url/api/delete" -d '{"model":"loop"}'; do :; done) &
  loop=$!
  sleep "0.0$((RANDOM % 9))"
  kill -9 "$server_pid"
  wait "$server_pid" "$loop" 2>/dev/null || true
  server_pid=
  start_server
  find "$OLLAMA_MODELS" -name '.tmp-*' | grep -q . && fail "round $round: leftovers stay"
  for name in $("$OLLAMA" list | awk 'NR > 1 { print $1 }'); do
    "$OLLAMA" show "$name" >/dev/null || fail "round $round: $name is broken"
  done
done
for file in "$blobs"/*; do
  [ "sha256-$(sha256sum "$file" | cut -d' ' -f1)" = "$(basename "$file")" ] || fail "$file is not what it says"
done
echo "store: ok"

#!/usr/bin/env bash
# run.sh CLIENT: a real client against a server of the test's own. Exit code 77: skipped, with the
# reason on standard output.
. "$(dirname "$0")/../e2e/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)

# A folder with the packages that package-lock.json pins. Tests that run at once share it, and a later
# run needs no network.
install_packages() {
  local cache=${NPM_CACHE:-$work/cache} log=$work/npm.log
  packages=$cache/packages-$(cat "$here/package.json" "$here/package-lock.json" | sha256sum | cut -c1-16)
  mkdir -p "$cache"
  (
    flock 9
    [ ! -e "$packages/complete" ] || exit 0
    rm -rf "$cache"/packages-*
    mkdir "$packages"
    cp "$here"/package.json "$here"/package-lock.json "$here"/.npmrc "$packages/"
    cd "$packages" &&
      npm ci --cache "$cache" --prefer-offline --ignore-scripts --no-audit --no-fund >"$log" 2>&1 &&
      touch complete
  ) 9>"$cache/packages.lock" || { cat "$log" >&2; fail "npm ci"; }
}

node_client() {
  command -v node >/dev/null && command -v npm >/dev/null || { echo "skipped: no Node.js"; exit 77; }
  install_packages
  mkdir "$work/js"
  cp "$here"/*.mjs "$work/js/"
  ln -s "$packages/node_modules" "$work/js/node_modules"
  start_server
  make_models
  node "$work/js/$1"
}

# The system's own Python: another one has other packages.
python_client() {  # python_client MODULE
  [ -x /usr/bin/python3 ] && /usr/bin/python3 -c "import $1" 2>/dev/null || {
    echo "skipped: Debian 13's python3-$1 is not installed (for it Debian 12's Python would have to be replaced)"
    exit 77
  }
  start_server
  make_models
  /usr/bin/python3 "$here/$1_python.py"
}

# What the bundled model cannot show: it has no template that knows of tools and thinking, its answers
# end, it embeds nothing, and nobody knows beforehand what it says.
make_models() {
  create tools "FROM stories260k" 'TEMPLATE """{{ range .Tools }}{"name": "{{ .Function.Name }}"}' \
    '{{ end }}{{ range .Messages }}{{ .Content }}{{ range .ToolCalls }}' \
    '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}{{ end }}"""'
  create thinker "FROM stories260k" 'TEMPLATE """{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>' \
    '{{ end }}{{ .Content }}{{ end }}{{ if .Think }}<think>{{ end }}"""'
  create endless "FROM $TEST_DATA/arch/granite.gguf"
  create bert "FROM $TEST_DATA/arch/bert.gguf"
  make_scripted_models
}
# Models that say calls and thoughts word for word, one for each family's way to write them.
make_scripted_models() {
  command -v node >/dev/null || return 0
  mkdir "$work/scripted"
  node "$here/scripted_model.mjs" "$work/scripted" || fail "scripted_model.mjs"
  local file
  for file in "$work/scripted"/Modelfile.*; do
    "$OLLAMA" create "scripted-${file##*.}" -f "$file" >"$work/create.log" 2>&1 || { cat "$work/create.log" >&2; fail "create $file"; }
  done
  export SCRIPTED=1
}
create() {  # create NAME LINE...
  local name=$1
  shift
  printf '%s\n' "$@" | "$OLLAMA" create "$name" -f - >"$work/create.log" 2>&1 || { cat "$work/create.log" >&2; fail "create $name"; }
}

# The same client at a server that asks for a key.
with_key() {
  stop_server
  start_server OLLAMA_API_KEYS=other,secret
  API_KEY=secret "$@"
}

case "$1" in
  js) node_client ollama_js.mjs ;;
  openai | anthropic)
    node_client "$1.mjs"
    with_key node "$work/js/$1.mjs"
    ;;
  ai_sdk) node_client ai_sdk.mjs ;;
  python) python_client ollama ;;
  openai_python)
    python_client openai
    with_key /usr/bin/python3 "$here/openai_python.py"
    ;;
  *) fail "usage: run.sh js|openai|anthropic|ai_sdk|python|openai_python" ;;
esac

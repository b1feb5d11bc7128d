#!/usr/bin/env bash
# run.sh js|python: a real client against a server of the test's own. Exit code 77: skipped, with the
# reason on standard output.
. "$(dirname "$0")/../e2e/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)

case "$1" in
  js)
    command -v node >/dev/null && command -v npm >/dev/null || { echo "skipped: no Node.js"; exit 77; }
    mkdir "$work/js"
    cp "$here"/package.json "$here"/package-lock.json "$here"/.npmrc "$here"/*.mjs "$work/js/"
    cd "$work/js"
    # The cache makes a second run independent of the network.
    npm ci --cache "${NPM_CACHE:-$work/cache}" --prefer-offline --ignore-scripts --no-audit --no-fund \
      >"$work/npm.log" 2>&1 || { cat "$work/npm.log" >&2; fail "npm ci"; }
    start_server
    node ollama_js.mjs
    ;;
  python)
    # The system's own Python: another one has other packages.
    python=/usr/bin/python3
    [ -x "$python" ] && "$python" -c 'import ollama' 2>/dev/null ||
      { echo "skipped: Debian's python3-ollama is not installed (Debian 12's Python would have to be replaced for it)"; exit 77; }
    start_server
    "$python" "$here/ollama_python.py"
    ;;
  *) fail "usage: run.sh js|python" ;;
esac

# Shared by the scripts beside it; sourced after `set -euo pipefail`, from the repository's root.
# shellcheck shell=bash

say() { printf '== %s\n' "$*" >&2; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# The comment at the top of the running script is its help.
print_help() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"; }

# How many compilers run at once; JOBS overrides it.
# shellcheck disable=SC2034
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}

# configure FOLDER [CMAKE ARGUMENTS]: keeps the generator of a folder that is there already.
configure() {
  local folder=$1
  shift
  local generator=()
  [ -e "$folder/CMakeCache.txt" ] || ! command -v ninja >/dev/null || generator=(-G Ninja)
  cmake -S . -B "$folder" "${generator[@]}" "$@"
}

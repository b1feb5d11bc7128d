#!/usr/bin/env bash
# GGML's backends come from GGML's own folder: a library planted in the current directory, or named by
# GGML_BACKEND_PATH, is never run. $PLANTED is a library that leaves a mark when it is loaded.
. "$(dirname "$0")/lib.sh"

: "${PLANTED:?set PLANTED to the planted library}"
mkdir "$work/here"
cd "$work/here"
for name in libggml-cpu.so libggml-cpu-haswell.so libggml-cpu-zen4.so libggml-cuda.so libggml-vulkan.so \
  libggml-blas.so; do
  cp "$PLANTED" "$name"
done
export PLANTED_MARK="$work/mark" GGML_BACKEND_PATH="$work/here/libggml-cpu.so"

# The mark works at all.
LD_PRELOAD="$PLANTED" /bin/true
[ -e "$PLANTED_MARK" ] || fail "the planted library leaves no mark"
rm "$PLANTED_MARK"

start_server
expect "$("$OLLAMA" run stories260k 'Once upon a time')" 'Lily'
stop_server
"$OLLAMA" debug logits --model stories260k --tokens 1,2,3 --n-greedy 2 --json >/dev/null
[ ! -e "$PLANTED_MARK" ] || fail "a planted library was loaded"
echo "planted library: ok"

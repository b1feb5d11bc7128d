#!/usr/bin/env bash
# A model on GPUs, here two that a software Vulkan driver offers: wholly, in part, not at all; with what
# the environment and a request say of them; with memory that is refused; with a driver that is broken.
# Compiling shaders for a CPU takes its time; what other tests compiled is used again.
export MESA_SHADER_CACHE_DIR="${MESA_SHADER_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}}"
. "$(dirname "$0")/lib.sh"

table=$("$OLLAMA" debug devices)
expect "$table" "^CPU +cpu +cpu "
export GGML_VK_VISIBLE_DEVICES=0,0
table=$("$OLLAMA" debug devices)
if ! grep -q "^Vulkan1 " <<<"$table"; then
  echo "no software Vulkan device: see scripts/install-deps"
  exit 77
fi
expect "$("$OLLAMA" debug devices --json)" '"name":"Vulkan0","kind":"gpu","library":"vulkan"'
for variable in OLLAMA_VULKAN=0 OLLAMA_LLM_LIBRARY=cpu OLLAMA_LLM_LIBRARY=cuda_v12; do
  grep -q Vulkan <<<"$(env "$variable" "$OLLAMA" debug devices)" && fail "$variable leaves Vulkan devices"
done
expect "$(OLLAMA_LLM_LIBRARY=vulkan "$OLLAMA" debug devices)" "^Vulkan1 "

prompt='"model":"stories260k","prompt":"Once upon a time","stream":false'
# ask OPTIONS: the answer's text with these options
ask() { curl -sS "$url/api/generate" -d "{$prompt,\"options\":{\"num_predict\":40${1:+,$1}}}"; }
story='Lily. She loved to play outside in the park'
layers() { "$OLLAMA" show --plan "$@" stories260k | head -n 1; }

# ---- Wholly, in part, not at all
start_server
expect "$(ask)" "$story"
expect "$("$OLLAMA" ps)" " 100% GPU "
expect "$(curl -fsS "$url/api/ps")" '"size_vram":[1-9]'
expect "$(ask '"num_gpu":3')" "$story"
expect "$("$OLLAMA" ps)" " [0-9]+%/[0-9]+% CPU/GPU "
expect "$(ask '"num_gpu":0')" "$story"
expect "$("$OLLAMA" ps)" " 100% CPU "
expect "$(ask '"num_gpu":99')" "$story"
expect "$("$OLLAMA" ps)" " 100% GPU "
expect "$(ask '"main_gpu":1')" "$story"
expect "$(ask '"main_gpu":7')" 'main_gpu 7 is not there: this machine has 2 GPUs'
expect "$(ask '"num_gpu":-5')" 'num_gpu -5 is no number of layers'
expect "$(layers)" "^6 of 6 layers"
expect "$(layers --num-gpu 2)" "^2 of 6 layers"
plan=$("$OLLAMA" show --plan --num-ctx 128 stories260k)
expect "$plan" "context 128"
expect "$plan" "^Vulkan0 +5 \+ output .*everything is placed"
expect "$plan" "^Vulkan1 +0 .*not needed"
expect "$(curl -fsS "$url/api/show" -d '{"model":"stories260k","plan":true}')" '"plan":\{"context_length":512'
"$OLLAMA" show --num-ctx 128 stories260k >"$work/out" 2>&1 && fail "--num-ctx alone"
expect "$(cat "$work/out")" "goes with '--plan'"
stop_server

# ---- What the environment says
start_server OLLAMA_SCHED_SPREAD=1
expect "$(ask)" "$story"
plan=$("$OLLAMA" show --plan stories260k)
expect "$plan" "^Vulkan0 +[1-5]"
expect "$plan" "^Vulkan1 +[1-5]"
stop_server
start_server OLLAMA_VRAM_MIN_FREE=4096GiB
expect "$(ask)" "$story"
expect "$("$OLLAMA" ps)" " 100% CPU "
plan=$("$OLLAMA" show --plan stories260k)
expect "$plan" "^0 of 6 layers"
expect "$plan" "^Vulkan0 .* 4096.0 GiB +4096.0 GiB are kept free"
expect "$plan" "^OLLAMA_VRAM_MIN_FREE=1048576 would place 6 more layers on GPUs \(6 of 6\)"
stop_server
start_server OLLAMA_GPU_OVERHEAD=4398046511104
expect "$(ask)" "$story"
expect "$("$OLLAMA" ps)" " 100% CPU "
expect "$(ask '"num_gpu":4')" 'num_gpu 4: .* more than is free. 0 layers fit: use num_gpu 0, or -1'
stop_server

# ---- Memory that is refused in spite of the plan: the plan is made again, at last without GPUs
# (A sanitizer's library must come first: then nothing can be put before the others.)
if [ -n "${SMALL_DEVICE:-}" ]; then
  start_server LD_PRELOAD="$SMALL_DEVICE" REFUSE_ABOVE=1000
  expect "$(ask)" "$story"
  expect "$("$OLLAMA" ps)" " 100% CPU "
  expect "$(cat "$work/server.log")" "has no room for .*: planning again with less"
  stop_server

  # Where half of the layers fit, the advice in the error is one that can be followed.
  start_server
  first=$(curl -fsS "$url/api/show" -d '{"model":"stories260k","plan":true}' | grep -oE '"name":"Vulkan0".*' | head -n 1)
  field() { grep -oE "\"$1\":[0-9]+" <<<"$first" | head -n 1 | grep -oE '[0-9]+$'; }
  room=$(($(field graph) + ($(field weights) + $(field cache)) / 2))
  stop_server
  start_server LD_PRELOAD="$SMALL_DEVICE" GGML_VK_VISIBLE_DEVICES=0 FREE_BYTES=$((room + 1048576)) OLLAMA_VRAM_MIN_FREE=1048576
  answer=$(ask '"num_gpu":6')
  expect "$answer" 'num_gpu 6: .* [1-9][0-9.]* [KM]iB for graphs; .* [1-5] layers fit: use num_gpu [1-5], or -1'
  expect "$(ask "\"num_gpu\":$(grep -oE 'use num_gpu [1-5]' <<<"$answer" | grep -oE '[1-5]')")" "$story"
  expect "$("$OLLAMA" ps)" " [0-9]+%/[0-9]+% CPU/GPU "
  stop_server
fi

# ---- A driver that ends every process that loads it: the server stays, the CPU answers
cat >"$work/broken.json" <<JSON
{"file_format_version": "1.0.0", "ICD": {"library_path": "$BROKEN_DRIVER", "api_version": "1.3.0"}}
JSON
export VK_DRIVER_FILES="$work/broken.json" VK_ICD_FILENAMES="$work/broken.json"
"$OLLAMA" debug devices >"$work/out" 2>&1 && fail "a broken driver is listed"
expect "$(cat "$work/out")" "this driver is broken"
start_server
expect "$(ask)" "$story"
expect "$("$OLLAMA" ps)" " 100% CPU "
expect "$(cat "$work/server.log")" "trying again on the CPU"
"$OLLAMA" show --plan stories260k >"$work/out" 2>&1 && fail "a plan with a broken driver"
expect "$(cat "$work/out")" "this driver is broken"
expect "$(ask)" "$story"
echo "devices: ok"

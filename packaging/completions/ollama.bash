# bash completion for ollama

# The names of the models, where a server answers.
_ollama_models() {
  "${COMP_WORDS[0]}" list 2>/dev/null | awk 'NR > 1 { print $1 }'
}
_ollama_running() {
  "${COMP_WORDS[0]}" ps 2>/dev/null | awk 'NR > 1 { print $1 }'
}

_ollama() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local command=${COMP_WORDS[1]} words='' files=0
  COMPREPLY=()

  if [ "$COMP_CWORD" = 1 ]; then
    words='serve create show run stop pull push list ls ps cp rm bench debug rpc version help --help --version'
  else
    case "$previous" in
      --format) words=json ;;
      --keepalive) return ;;
      -f | --file | --out) files=1 ;;
      --kv-type) words='f32 f16 bf16 q8_0 q4_0' ;;
      --fa) words='on off auto' ;;
      --backend) words='ggml reference' ;;
      --shape) words='llama-1b qwen3-0.6b tiny' ;;
      --model) words=$(_ollama_models); files=1 ;;
      *)
        case "$command" in
          run)
            if [[ $current == -* ]]; then
              words='--verbose --format --keepalive --nowordwrap --insecure --help'
            elif [ "$COMP_CWORD" = 2 ]; then
              words=$(_ollama_models)
              files=1
            fi ;;
          show)
            if [[ $current == -* ]]; then
              words='--license --modelfile --parameters --system --template --plan --num-ctx --num-gpu --verbose --help'
            else
              words=$(_ollama_models)
            fi ;;
          create)
            if [[ $current == -* ]]; then words='-f --file -q --quantize --help'; fi ;;
          stop) words=$(_ollama_running) ;;
          pull | push | cp | rm) words=$(_ollama_models) ;;
          bench)
            if [[ $current == -* ]]; then
              words='--model -p -n -d --parallel -r -t -b -g --kv-type --fa --kernels --num-gpu --seed --json --help'
            fi ;;
          debug)
            if [ "$COMP_CWORD" = 2 ]; then
              words='devices env kernels logits make-model render stats tensors tokenize --help'
            elif [[ $current == -* ]]; then
              case "${COMP_WORDS[2]}" in
                tokenize) words='--model --text --pre --add-special --parse-special --batch --json' ;;
                logits) words='--model --tokens --n-greedy --kv-type --chunk --backend --fa --num-gpu --threads --json' ;;
                tensors) words='--model --prompt --filter --edge --threads --json' ;;
                stats) words='--model --prompt --n-gen --threads --json' ;;
                env | devices) words='--json' ;;
                kernels) words='--model --tokens --kv-type --threads --json' ;;
                render) words='--template --kind --data --now' ;;
                make-model) words='--shape --type --out --seed' ;;
              esac
            fi ;;
          help) words='serve create show run stop pull push list ps cp rm bench debug rpc version' ;;
        esac ;;
    esac
  fi

  if [ -n "$words" ]; then
    # A model's name has a colon, which readline takes for the end of a word.
    local prefix=''
    if [[ $current == *:* && ${COMP_WORDBREAKS-} == *:* ]]; then prefix=${current%:*}:; fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
  fi
  if [ "$files" = 1 ]; then
    local file
    while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$current")
    compopt -o filenames 2>/dev/null
  fi
}
complete -F _ollama ollama

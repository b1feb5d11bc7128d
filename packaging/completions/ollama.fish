# fish completion for ollama

function __ollama_models
    ollama list 2>/dev/null | awk 'NR > 1 { print $1 }'
end
function __ollama_running
    ollama ps 2>/dev/null | awk 'NR > 1 { print $1 }'
end

complete -c ollama -f
complete -c ollama -n __fish_use_subcommand -s h -l help -d 'Help'
complete -c ollama -n __fish_use_subcommand -s v -l version -d 'Version'
complete -c ollama -n __fish_use_subcommand -a serve -d 'Start the server'
complete -c ollama -n __fish_use_subcommand -a create -d 'Make a model from a Modelfile'
complete -c ollama -n __fish_use_subcommand -a show -d 'Describe a model'
complete -c ollama -n __fish_use_subcommand -a run -d 'Talk to a model'
complete -c ollama -n __fish_use_subcommand -a stop -d 'Unload a model'
complete -c ollama -n __fish_use_subcommand -a pull -d 'Download a model'
complete -c ollama -n __fish_use_subcommand -a push -d 'Upload a model'
complete -c ollama -n __fish_use_subcommand -a 'list ls' -d 'List the models'
complete -c ollama -n __fish_use_subcommand -a ps -d 'List the loaded models'
complete -c ollama -n __fish_use_subcommand -a cp -d 'Copy a model'
complete -c ollama -n __fish_use_subcommand -a rm -d 'Delete models'
complete -c ollama -n __fish_use_subcommand -a bench -d 'Measure a model'
complete -c ollama -n __fish_use_subcommand -a debug -d 'Look inside'
complete -c ollama -n __fish_use_subcommand -a rpc -d 'Lend devices to a server elsewhere'
complete -c ollama -n __fish_use_subcommand -a version -d 'Print the version'
complete -c ollama -n __fish_use_subcommand -a help -d 'Describe a command'

complete -c ollama -n '__fish_seen_subcommand_from run show pull push cp rm' -a '(__ollama_models)'
complete -c ollama -n '__fish_seen_subcommand_from stop' -a '(__ollama_running)'
complete -c ollama -n '__fish_seen_subcommand_from run' -F
complete -c ollama -n '__fish_seen_subcommand_from run show' -l verbose -d 'Say more'
complete -c ollama -n '__fish_seen_subcommand_from run' -l format -x -a json -d 'Format of the answer'
complete -c ollama -n '__fish_seen_subcommand_from run' -l keepalive -x -d 'How long the model stays loaded'
complete -c ollama -n '__fish_seen_subcommand_from run' -l nowordwrap -d 'Leave lines as they are'
complete -c ollama -n '__fish_seen_subcommand_from show' -l license
complete -c ollama -n '__fish_seen_subcommand_from show' -l modelfile
complete -c ollama -n '__fish_seen_subcommand_from show' -l parameters
complete -c ollama -n '__fish_seen_subcommand_from show' -l system
complete -c ollama -n '__fish_seen_subcommand_from show' -l template
complete -c ollama -n '__fish_seen_subcommand_from show' -l plan -d 'Where it would be loaded'
complete -c ollama -n '__fish_seen_subcommand_from show' -l num-ctx -x
complete -c ollama -n '__fish_seen_subcommand_from show bench' -l num-gpu -x
complete -c ollama -n '__fish_seen_subcommand_from rpc' -l listen -x -d Address
complete -c ollama -n '__fish_seen_subcommand_from create' -s f -l file -r -F -d Modelfile
complete -c ollama -n '__fish_seen_subcommand_from create' -s q -l quantize -x -d 'Type of the weights'
complete -c ollama -n '__fish_seen_subcommand_from debug' -a 'devices env kernels logits make-model render stats tensors tokenize'
complete -c ollama -n '__fish_seen_subcommand_from bench debug' -l model -r -F -a '(__ollama_models)' -d Model
complete -c ollama -n '__fish_seen_subcommand_from bench debug' -l json -d 'Print JSON'

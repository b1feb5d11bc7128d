#include <print>

#include "cmd/commands.h"
#include "cmd/connect.h"
#include "cmd/show_info.h"

namespace ollama::cmd {
namespace {

Result<int> show(const envconfig::Config& config, const Arguments& arguments) {
  std::string part;
  for (const char* name : {"license", "modelfile", "parameters", "system", "template"}) {
    if (!arguments.boolean(name)) continue;
    if (!part.empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  "only one of '--license', '--modelfile', '--parameters', '--system', or "
                  "'--template' can be specified");
    }
    part = name;
  }

  OLLAMA_ASSIGN(api::Client client, connect(config));
  api::ShowRequest request;
  request.model = arguments[0];
  request.verbose = arguments.boolean("verbose");
  OLLAMA_ASSIGN(const api::ShowResponse model, client.show(request));
  if (part.empty()) {
    std::print("{}", format_model(model, request.verbose));
  } else if (part == "license") {
    std::println("{}", model.license);
  } else if (part == "modelfile") {
    std::println("{}", model.modelfile);
  } else if (part == "parameters") {
    std::println("{}", model.parameters);
  } else if (part == "system") {
    std::print("{}", model.system);
  } else {
    std::print("{}", model.template_text);
  }
  return 0;
}

}  // namespace

Command show_command(const envconfig::Config& config) {
  return {.name = "show",
          .usage = "MODEL",
          .summary = "Show information for a model",
          .min_arguments = 1,
          .max_arguments = 1,
          .flags = {{.name = "license", .help = "Show license of a model"},
                    {.name = "modelfile", .help = "Show Modelfile of a model"},
                    {.name = "parameters", .help = "Show parameters of a model"},
                    {.name = "template", .help = "Show template of a model"},
                    {.name = "system", .help = "Show system message of a model"},
                    {.name = "verbose", .letter = 'v', .help = "Show detailed model information"}},
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return show(config, arguments); }};
}

}  // namespace ollama::cmd

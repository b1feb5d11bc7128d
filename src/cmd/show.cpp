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
  request.plan = arguments.boolean("plan");
  if (request.plan && !part.empty()) {
    return fail(ErrorCode::kInvalidArgument, "'--plan' and '--{}' cannot be combined", part);
  }
  for (const auto& [flag, option] :
       {std::pair("num-ctx", "num_ctx"), std::pair("num-gpu", "num_gpu")}) {
    if (!arguments.given(flag)) continue;
    if (!request.plan) {
      return fail(ErrorCode::kInvalidArgument, "'--{}' goes with '--plan'", flag);
    }
    request.options[option] = arguments.number(flag);
  }
  OLLAMA_ASSIGN(const api::ShowResponse model, client.show(request));
  if (request.plan) {
    if (!model.plan) {
      return fail(ErrorCode::kUnsupported, "this server does not explain where it loads models");
    }
    std::print("{}", format_plan(*model.plan));
    return 0;
  }
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
                    {.name = "plan",
                     .help = "Show which device each part would be loaded on now, and why"},
                    {.name = "num-ctx",
                     .kind = FlagKind::kInt,
                     .help = "With --plan: for a context of this many tokens"},
                    {.name = "num-gpu",
                     .kind = FlagKind::kInt,
                     .help = "With --plan: for this many layers on GPUs"},
                    {.name = "verbose", .letter = 'v', .help = "Show detailed model information"}},
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return show(config, arguments); }};
}

}  // namespace ollama::cmd

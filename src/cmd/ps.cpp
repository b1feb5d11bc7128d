#include <cmath>
#include <print>

#include "base/units.h"
#include "cmd/commands.h"
#include "cmd/connect.h"
#include "cmd/human_time.h"
#include "cmd/table.h"

namespace ollama::cmd {
namespace {

// Where a model's memory is: "100% CPU", "100% GPU", "25%/75% CPU/GPU"; how far it is loaded.
std::string processor(const api::ProcessModel& model) {
  if (model.loading < 1) return std::format("loading {:.0f} %", 100 * model.loading);
  if (model.size_vram == 0) return "100% CPU";
  if (model.size_vram == model.size) return "100% GPU";
  if (model.size_vram > model.size) return "Unknown";
  const long cpu = std::lround(static_cast<double>(model.size - model.size_vram) /
                               static_cast<double>(model.size) * 100);
  return std::format("{}%/{}% CPU/GPU", cpu, 100 - cpu);
}

Result<int> ps(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(api::Client client, connect(config));
  OLLAMA_ASSIGN(const api::ProcessResponse models, client.running());
  const api::Time now = api::now();
  std::vector<Row> rows;
  for (const api::ProcessModel& model : models.models) {
    if (arguments.size() > 0 && !model.name.starts_with(arguments[0])) continue;
    const bool ending = model.expires_at != api::Time{} && model.expires_at < now;
    rows.push_back({model.name, model.digest.substr(0, 12), human_bytes(model.size),
                    processor(model), std::to_string(model.context_length),
                    ending ? "Stopping..." : human_time(model.expires_at, now, "Never")});
  }
  std::print("{}", format_table({"NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"}, rows));
  return 0;
}

}  // namespace

Command ps_command(const envconfig::Config& config) {
  return {.name = "ps",
          .usage = "",
          .summary = "List running models",
          .max_arguments = Command::kAny,
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return ps(config, arguments); }};
}

}  // namespace ollama::cmd

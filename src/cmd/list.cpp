#include <cctype>
#include <print>

#include "base/units.h"
#include "cmd/commands.h"
#include "cmd/connect.h"
#include "cmd/human_time.h"
#include "cmd/table.h"

namespace ollama::cmd {
namespace {

bool starts_with_ignoring_case(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::ranges::equal(text.substr(0, prefix.size()), prefix, [](char a, char b) {
           return std::tolower(static_cast<unsigned char>(a)) ==
                  std::tolower(static_cast<unsigned char>(b));
         });
}

Result<int> list(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(api::Client client, connect(config));
  OLLAMA_ASSIGN(const api::ListResponse models, client.list());
  const api::Time now = api::now();
  std::vector<Row> rows;
  for (const api::ListModel& model : models.models) {
    if (arguments.size() > 0 && !starts_with_ignoring_case(model.name, arguments[0])) continue;
    rows.push_back({model.name, model.digest.substr(0, 12), human_bytes(model.size),
                    human_time(model.modified_at, now, "Never")});
  }
  std::print("{}", format_table({"NAME", "ID", "SIZE", "MODIFIED"}, rows));
  return 0;
}

}  // namespace

Command list_command(const envconfig::Config& config) {
  return {.name = "list",
          .usage = "",
          .summary = "List models",
          .max_arguments = Command::kAny,
          .aliases = {"ls"},
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return list(config, arguments); }};
}

}  // namespace ollama::cmd

// `ollama debug devices`: what models can be loaded on.
#include <print>

#include "api/types.h"
#include "base/units.h"
#include "cmd/commands.h"
#include "cmd/table.h"
#include "runner/local.h"

namespace ollama::cmd {
namespace {

std::string_view kind_name(ml::DeviceKind kind) {
  switch (kind) {
    case ml::DeviceKind::kCpu:
      return "cpu";
    case ml::DeviceKind::kGpu:
      return "gpu";
    case ml::DeviceKind::kIntegratedGpu:
      return "integrated gpu";
  }
  return "";
}

Result<int> debug_devices(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(const std::vector<ml::Device> devices,
                runner::LocalRunner::list_devices(ml::device_options_of(config)));
  if (arguments.boolean("json")) {
    boost::json::array list;
    for (const ml::Device& device : devices) {
      list.push_back(api::JsonObject{{"name", device.name},
                                     {"kind", kind_name(device.kind)},
                                     {"library", device.library},
                                     {"id", device.id},
                                     {"description", device.description},
                                     {"total", device.total_bytes},
                                     {"free", device.free_bytes}});
    }
    std::println("{}", api::to_string(api::JsonObject{{"devices", std::move(list)}}));
    return 0;
  }
  std::vector<Row> rows;
  for (const ml::Device& device : devices) {
    rows.push_back({device.name, std::string(kind_name(device.kind)), device.library,
                    device.id.empty() ? "-" : device.id, human_bytes_binary(device.total_bytes),
                    human_bytes_binary(device.free_bytes), device.description});
  }
  std::print("{}", format_table({"NAME", "KIND", "LIBRARY", "ID", "TOTAL", "FREE", "DESCRIPTION"},
                                rows, {.max_cell = 60}));
  return 0;
}

}  // namespace

Command debug_devices_command(const envconfig::Config& config) {
  return {
      .name = "devices",
      .usage = "",
      .summary = "List the devices that models can be loaded on, with their memory",
      .flags = {{.name = "json", .help = "Print a JSON object"}},
      .environment = {"CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
                      "OLLAMA_IGPU_ENABLE", "OLLAMA_LLM_LIBRARY", "OLLAMA_RPC_SERVERS",
                      "OLLAMA_VULKAN"},
      .run = [&config](const Arguments& arguments) { return debug_devices(config, arguments); }};
}

}  // namespace ollama::cmd

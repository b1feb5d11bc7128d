#include "cmd/show_info.h"

#include <algorithm>
#include <charconv>
#include <format>
#include <sstream>

#include "base/units.h"
#include "cmd/table.h"
#include "cmd/terminal.h"

namespace ollama::cmd {
namespace {

// Ollama wraps long texts later than short values.
constexpr TableOptions kText{.max_cell = 100};
constexpr std::size_t kShownLines = 2;

void append_box(std::string& out, std::string_view title, const std::vector<Row>& rows,
                TableOptions options = {}) {
  out += std::format("  {}\n{}\n", title, format_table({}, rows, options));
}

std::string format_number(double number) {
  std::array<char, 512> buffer;  // the largest double has 309 digits
  const auto [end, error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, std::chars_format::fixed);
  return error == std::errc{} ? std::string(buffer.data(), end) : std::string();
}

// nullopt for anything but a number.
std::optional<double> as_number(const api::JsonObject& object, std::string_view key) {
  const api::Json* value = object.if_contains(key);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->to_number<double>();
}

std::string as_text(const api::JsonObject& object, std::string_view key) {
  const api::Json* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::string format_value(const api::Json& value);

// The elements that fit in a narrow column: "[1 2 3 ...+5 more]".
std::string format_array(const boost::json::array& values) {
  constexpr std::size_t kColumn = 10;
  std::string text = "[";
  std::size_t shown = 0;
  std::size_t width = 1;
  for (const api::Json& value : values) {
    const std::string item = format_value(value);
    width += display_width(item) + (shown > 0 ? 2 : 0);
    if (shown > 0 && width > kColumn) break;
    if (shown > 0) text += ' ';
    text += item;
    ++shown;
  }
  if (shown < values.size()) text += std::format(" ...+{} more", values.size() - shown);
  return text + "]";
}

std::string format_value(const api::Json& value) {
  switch (value.kind()) {
    case boost::json::kind::bool_:
      return value.get_bool() ? "true" : "false";
    case boost::json::kind::string:
      return std::string(value.get_string());
    case boost::json::kind::int64:
      return std::to_string(value.get_int64());
    case boost::json::kind::uint64:
      return std::to_string(value.get_uint64());
    case boost::json::kind::double_:
      return format_number(value.get_double());
    case boost::json::kind::array:
      return format_array(value.get_array());
    case boost::json::kind::null:
    case boost::json::kind::object:
      return "";
  }
  return "";
}

std::vector<Row> model_rows(const api::ShowResponse& model) {
  std::vector<Row> rows;
  const std::string architecture = as_text(model.model_info, "general.architecture");
  if (architecture.empty()) {
    rows.push_back({"", "architecture", model.details.family});
    rows.push_back({"", "parameters", model.details.parameter_size});
  } else {
    rows.push_back({"", "architecture", architecture});
    std::string parameters = model.details.parameter_size;
    if (const auto count = as_number(model.model_info, "general.parameter_count")) {
      parameters = human_number(static_cast<std::uint64_t>(std::max(0.0, *count)));
    }
    if (!parameters.empty()) rows.push_back({"", "parameters", parameters});
    for (const auto& [key, title] : {std::pair{"context_length", "context length"},
                                     {"embedding_length", "embedding length"}}) {
      const auto number = as_number(model.model_info, std::format("{}.{}", architecture, key));
      if (number) rows.push_back({"", title, format_number(*number)});
    }
  }
  rows.push_back({"", "quantization", model.details.quantization_level});
  if (!model.requires_version.empty()) rows.push_back({"", "requires", model.requires_version});
  return rows;
}

std::vector<Row> projector_rows(const api::JsonObject& info) {
  std::vector<Row> rows;
  const std::string architecture = as_text(info, "general.architecture");
  if (!architecture.empty()) rows.push_back({"", "architecture", architecture});
  if (const auto count = as_number(info, "general.parameter_count")) {
    rows.push_back(
        {"", "parameters", human_number(static_cast<std::uint64_t>(std::max(0.0, *count)))});
  }
  for (const auto& [key, title] :
       {std::pair{"embedding_length", "embedding length"}, {"projection_dim", "dimensions"}}) {
    for (const char* part : {"vision", "audio"}) {
      const auto number = as_number(info, std::format("{}.{}.{}", architecture, part, key));
      if (!number) continue;
      rows.push_back({"", title, format_number(*number)});
      break;
    }
  }
  return rows;
}

std::string trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1));
}

// The first lines that are not blank.
std::vector<Row> head(const std::string& text) {
  std::vector<Row> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    line = trim(line);
    if (line.empty()) continue;
    if (rows.size() == kShownLines) {
      rows.push_back({"", "..."});
      break;
    }
    rows.push_back({"", line});
  }
  return rows;
}

std::vector<Row> parameter_rows(const std::string& parameters) {
  std::vector<Row> rows;
  std::istringstream lines(parameters);
  for (std::string line; std::getline(lines, line);) {
    Row row{""};
    std::istringstream words(line);
    for (std::string word; words >> word;) row.push_back(word);
    if (row.size() > 1) rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Row> metadata_rows(const api::JsonObject& info) {
  std::vector<Row> rows;
  for (const auto& [key, value] : info) {
    rows.push_back({"", std::string(key), format_value(value)});
  }
  std::ranges::sort(rows, {}, [](const Row& row) -> const std::string& { return row[1]; });
  return rows;
}

std::vector<Row> tensor_rows(const std::vector<api::Tensor>& tensors) {
  std::vector<Row> rows;
  for (const api::Tensor& tensor : tensors) {
    std::string shape;
    for (const std::uint64_t size : tensor.shape) {
      shape += std::format("{}{}", shape.empty() ? "" : " ", size);
    }
    rows.push_back({"", tensor.name, tensor.type, "[" + shape + "]"});
  }
  return rows;
}

}  // namespace

std::string format_model(const api::ShowResponse& model, bool verbose) {
  std::string out;
  append_box(out, "Model", model_rows(model));
  if (!model.capabilities.empty()) {
    std::vector<Row> rows;
    for (const std::string& capability : model.capabilities) rows.push_back({"", capability});
    append_box(out, "Capabilities", rows);
  }
  if (!model.projector_info.empty()) {
    append_box(out, "Projector", projector_rows(model.projector_info));
  }
  if (!model.parameters.empty()) append_box(out, "Parameters", parameter_rows(model.parameters));
  if (verbose && !model.model_info.empty()) {
    append_box(out, "Metadata", metadata_rows(model.model_info));
  }
  if (verbose && !model.tensors.empty()) append_box(out, "Tensors", tensor_rows(model.tensors));
  if (!model.system.empty()) append_box(out, "System", head(model.system), kText);
  if (!model.license.empty()) append_box(out, "License", head(model.license), kText);
  return out;
}

std::string format_plan(const api::MemoryPlan& plan) {
  const auto size = [](std::uint64_t bytes) {
    return bytes == 0 ? std::string("-") : human_bytes_binary(bytes);
  };
  std::string out = std::format(
      "{} of {} layers on GPUs, context {} for each of {} in parallel, "
      "{} cache\n\n",
      plan.layers_on_gpu, plan.layers, plan.context_length, plan.num_parallel, plan.kv_cache_type);
  std::vector<Row> rows;
  for (const api::PlannedDevice& device : plan.devices) {
    std::string layers = std::to_string(device.layers);
    if (device.output) layers += " + output";
    rows.push_back({device.name, std::move(layers), size(device.weights), size(device.cache),
                    size(device.graph), size(device.weights + device.cache + device.graph),
                    size(device.free), size(device.kept_free), device.reason});
  }
  out += format_table({"DEVICE", "LAYERS", "WEIGHTS", "CACHE", "GRAPH", "TOTAL", "FREE",
                       "KEPT FREE", "WHY NOT MORE"},
                      rows, {.max_cell = 60});
  if (!plan.gains.empty()) out += '\n';
  for (const std::string& gain : plan.gains) out += gain + '\n';
  return out;
}

}  // namespace ollama::cmd

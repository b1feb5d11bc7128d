// The commands that begin with a slash, and their help.
#include <algorithm>
#include <cstdio>
#include <print>
#include <sstream>

#include "cmd/interactive.h"
#include "cmd/show_info.h"

namespace ollama::cmd {
namespace {

using Words = std::vector<std::string>;

Words split(std::string_view line) {
  Words words;
  std::istringstream stream{std::string(line)};
  for (std::string word; stream >> word;) words.push_back(std::move(word));
  return words;
}

// The rest of `line` behind its first `count` words, blanks inside kept.
std::string rest_after(std::string_view line, std::size_t count) {
  constexpr std::string_view kBlanks = " \t";
  for (std::size_t i = 0; i < count; ++i) {
    line.remove_prefix(std::min(line.find_first_not_of(kBlanks), line.size()));
    line.remove_prefix(std::min(line.find_first_of(kBlanks), line.size()));
  }
  line.remove_prefix(std::min(line.find_first_not_of(kBlanks), line.size()));
  return std::string(line);
}

std::string join(std::span<const std::string> words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// ---- Help. Ollama's layout; on standard error, as there.

struct Entry {
  std::string_view left;
  std::string_view right;
};

void print_help(std::string_view title, std::span<const Entry> entries) {
  std::size_t width = 0;
  for (const Entry& entry : entries) width = std::max(width, entry.left.size());
  std::println(stderr, "{}", title);
  for (const auto& [left, right] : entries) {
    if (left.empty()) {
      std::println(stderr, "");
    } else {
      std::println(stderr, "  {:<{}}   {}", left, width, right);
    }
  }
  std::println(stderr, "");
}

void help() {
  constexpr Entry kEntries[] = {
      {"/set", "Set session variables"},
      {"/show", "Show model information"},
      {"/load <model>", "Load a session or model"},
      {"/save <model>", "Save your current session"},
      {"/clear", "Clear session context"},
      {"/bye", "Exit"},
      {"/?, /help", "Help for a command"},
      {"/? shortcuts", "Help for keyboard shortcuts"},
  };
  print_help("Available Commands:", kEntries);
  std::println(stderr, "Use \"\"\" to begin a multi-line message.\n");
}

void help_set() {
  constexpr Entry kEntries[] = {
      {"/set parameter ...", "Set a parameter"}, {"/set system <string>", "Set system message"},
      {"/set history", "Enable history"},        {"/set nohistory", "Disable history"},
      {"/set wordwrap", "Enable wordwrap"},      {"/set nowordwrap", "Disable wordwrap"},
      {"/set format json", "Enable JSON mode"},  {"/set noformat", "Disable formatting"},
      {"/set verbose", "Show LLM stats"},        {"/set quiet", "Disable LLM stats"},
      {"/set think", "Enable thinking"},         {"/set nothink", "Disable thinking"},
  };
  print_help("Available Commands:", kEntries);
}

void help_show() {
  constexpr Entry kEntries[] = {
      {"/show info", "Show details for this model"},
      {"/show license", "Show model license"},
      {"/show modelfile", "Show Modelfile for this model"},
      {"/show parameters", "Show parameters for this model"},
      {"/show system", "Show system message"},
      {"/show template", "Show prompt template"},
  };
  print_help("Available Commands:", kEntries);
}

void help_shortcuts() {
  constexpr Entry kEntries[] = {
      {"Ctrl + a", "Move to the beginning of the line (Home)"},
      {"Ctrl + e", "Move to the end of the line (End)"},
      {" Alt + b", "Move back (left) one word"},
      {" Alt + f", "Move forward (right) one word"},
      {"Ctrl + k", "Delete what is after the cursor"},
      {"Ctrl + u", "Delete what is before the cursor"},
      {"Ctrl + w", "Delete the word before the cursor"},
      {"Ctrl + r", "Search the history"},
      {"", ""},
      {"Ctrl + l", "Clear the screen"},
      {"Ctrl + g", "Open an editor to write a prompt"},
      {"Ctrl + c", "Stop the model from responding"},
      {"Ctrl + d", "Exit ollama (/bye)"},
  };
  print_help("Available keyboard shortcuts:", kEntries);
}

void help_parameters() {
  constexpr Entry kEntries[] = {
      {"/set parameter seed <int>", "Random number seed"},
      {"/set parameter num_predict <int>", "Max number of tokens to predict"},
      {"/set parameter top_k <int>", "Pick from top k num of tokens"},
      {"/set parameter top_p <float>", "Pick token based on sum of probabilities"},
      {"/set parameter min_p <float>", "Pick token based on top token probability * min_p"},
      {"/set parameter num_ctx <int>", "Set the context size"},
      {"/set parameter temperature <float>", "Set creativity level"},
      {"/set parameter repeat_penalty <float>", "How strongly to penalize repetitions"},
      {"/set parameter repeat_last_n <int>", "Set how far back to look for repetitions"},
      {"/set parameter mirostat <int>", "Sample by Mirostat 1 or 2 (0: off)"},
      {"/set parameter dynatemp_range <float>", "Let the temperature follow the entropy"},
      {"/set parameter xtc_probability <float>", "How often to drop the likeliest tokens"},
      {"/set parameter dry_multiplier <float>", "How strongly to penalize repeated sequences"},
      {"/set parameter logit_bias <json>", "Added to the logits: {\"token id\": bias}"},
      {"/set parameter num_gpu <int>", "The number of layers to send to the GPU"},
      {"/set parameter stop <string> <string> ...", "Set the stop parameters"},
  };
  print_help("Available Parameters:", kEntries);
}

void unknown(std::string_view command) {
  std::println("Unknown command '{}'. Type /? for help", command);
}

// ---- /show

std::string option_text(const api::Json& value) {
  if (value.is_string()) return std::string(value.get_string());
  return api::to_string(value);
}

void show_parameters(const api::ShowResponse& model, const Session& session) {
  std::println("Model defined parameters:");
  if (model.parameters.empty()) {
    std::println("  No additional parameters were specified for this model.");
  } else {
    std::istringstream lines(model.parameters);
    for (std::string line; std::getline(lines, line);) std::println("  {}", line);
  }
  std::println("");
  if (session.options.empty()) return;
  std::println("User defined parameters:");
  for (const auto& [name, value] : session.options) {
    std::println("  {:<30} {}", std::string_view(name), option_text(value));
  }
  std::println("");
}

void print_or(const std::string& text, std::string_view what) {
  if (text.empty()) {
    std::println("No {} was specified for this model.", what);
  } else {
    std::println("{}", text);
  }
}

void show(const Words& words, ModelHost& host, const Session& session) {
  if (words.size() < 2) {
    help_show();
    return;
  }
  api::ShowRequest request;
  request.model = session.model;
  request.system = session.system;
  request.options = session.options;
  const auto model = host.show(request);
  if (!model) {
    std::println("error: couldn't get model: {}", model.error().message());
    return;
  }
  const std::string& what = words[1];
  if (what == "info") {
    std::print(stderr, "{}", format_model(*model, false));
  } else if (what == "license") {
    print_or(model->license, "license");
  } else if (what == "modelfile") {
    std::println("{}", model->modelfile);
  } else if (what == "parameters") {
    show_parameters(*model, session);
  } else if (what == "system") {
    print_or(session.system.empty() ? model->system : session.system, "system message");
  } else if (what == "template") {
    print_or(model->template_text, "prompt template");
  } else {
    unknown("/show " + what);
  }
}

// ---- /set

void set_parameter(const Words& words, Session& session) {
  if (words.size() < 4) {
    help_parameters();
    return;
  }
  const Words values(words.begin() + 3, words.end());
  auto value = api::parse_parameter(words[2], values);
  if (!value) {
    std::println("Couldn't set parameter: {}", value.error().message());
    return;
  }
  session.options[words[2]] = std::move(*value);
  std::println("Set parameter '{}' to '{}'", words[2], join(values));
}

void set_think(const Words& words, ModelHost& host, Session& session, bool enabled) {
  const std::string level = enabled && words.size() > 2 ? words[2] : "";
  session.think = api::Think{.enabled = enabled, .level = level};
  session.think_chosen = true;
  api::ShowRequest request;
  request.model = session.model;
  if (const auto model = host.show(request); model && !has_capability(*model, "thinking")) {
    std::println(stderr, "warning: model \"{}\" does not support thinking output", session.model);
  }
  if (level.empty()) {
    std::println("Set '{}' mode.", enabled ? "think" : "nothink");
  } else {
    std::println("Set 'think' mode to '{}'.", level);
  }
}

void set_format(const Words& words, Session& session) {
  if (words.size() < 3 || words[2] != "json") {
    std::println("Invalid or missing format. For 'json' mode use '/set format json'");
    return;
  }
  session.format = "json";
  std::println("Set format to 'json' mode.");
}

CommandOutcome set(const Words& words, std::string_view line, ModelHost& host, Session& session) {
  if (words.size() < 2) {
    help_set();
    return {};
  }
  const std::string& what = words[1];
  if (what == "history" || what == "nohistory") {
    return {.result = CommandResult::kHistory, .text = {}, .enabled = what == "history"};
  }
  if (what == "system") {
    if (words.size() > 2) return {.result = CommandResult::kSystem, .text = rest_after(line, 2)};
    help_set();
  } else if (what == "wordwrap" || what == "nowordwrap") {
    session.word_wrap = what == "wordwrap";
    std::println("Set '{}' mode.", what);
  } else if (what == "verbose" || what == "quiet") {
    session.verbose = what == "verbose";
    std::println("Set '{}' mode.", what);
  } else if (what == "think" || what == "nothink") {
    set_think(words, host, session, what == "think");
  } else if (what == "format") {
    set_format(words, session);
  } else if (what == "noformat") {
    session.format = nullptr;
    std::println("Disabled format.");
  } else if (what == "parameter") {
    set_parameter(words, session);
  } else {
    unknown("/set " + what);
  }
  return {};
}

// ---- The others

void load(const Words& words, ModelHost& host, Session& session) {
  if (words.size() != 2) {
    std::println("Usage:\n  /load <modelname>");
    return;
  }
  const Session before = session;
  session.model = words[1];
  session.messages.clear();
  std::println("Loading model '{}'", session.model);
  std::fflush(stdout);
  const auto loaded = load_model(host, session);
  if (loaded) return;
  if (loaded.error().code() == ErrorCode::kNotFound) {
    std::println("Couldn't find model '{}'", words[1]);
  } else {
    std::println("error: {}", loaded.error().message());
  }
  session = before;
}

void save(const Words& words, ModelHost& host, const Session& session) {
  if (words.size() != 2) {
    std::println("Usage:\n  /save <modelname>");
    return;
  }
  const auto saved = host.create(save_request(session, words[1]));
  if (saved) {
    std::println("Created new model '{}'", words[1]);
  } else {
    std::println("error: {}", saved.error().message());
  }
}

void clear(Session& session) {
  session.messages.clear();
  if (!session.system.empty()) set_system(session, session.system);
  std::println("Cleared session context");
}

}  // namespace

void set_system(Session& session, std::string text) {
  session.system = text;
  if (session.messages.empty() || session.messages.back().role != "system") {
    session.messages.emplace_back().role = "system";
  }
  session.messages.back().content = std::move(text);
}

CommandOutcome run_slash_command(std::string_view line, ModelHost& host, Session& session) {
  const Words words = split(line);
  const std::string& command = words[0];
  if (command == "/bye" || command == "/exit") return {.result = CommandResult::kLeave};
  if (command == "/set") return set(words, line, host, session);
  if (command == "/show") {
    show(words, host, session);
  } else if (command == "/load") {
    load(words, host, session);
  } else if (command == "/save") {
    save(words, host, session);
  } else if (command == "/clear") {
    clear(session);
  } else if (command == "/?" || command == "/help") {
    const std::string topic = words.size() > 1 ? words[1] : "";
    if (topic == "set" || topic == "/set") {
      help_set();
    } else if (topic == "show" || topic == "/show") {
      help_show();
    } else if (topic.starts_with("shortcut")) {
      help_shortcuts();
    } else {
      help();
    }
  } else {
    unknown(command);
  }
  return {};
}

}  // namespace ollama::cmd

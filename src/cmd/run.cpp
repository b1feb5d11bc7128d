#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <print>
#include <utility>

#include "cmd/answer.h"
#include "cmd/commands.h"
#include "cmd/connect.h"
#include "cmd/interactive.h"
#include "cmd/model_host.h"
#include "cmd/model_path.h"
#include "cmd/session.h"
#include "cmd/terminal.h"
#include "cmd/transfer.h"
#include "envconfig/duration.h"

namespace ollama::cmd {
namespace {

Result<api::Think> parse_think(const std::string& value) {
  if (value == "true") return api::Think{.enabled = true, .level = {}};
  if (value == "false") return api::Think{.enabled = false, .level = {}};
  for (const char* level : {"high", "medium", "low", "max"}) {
    if (value == level) return api::Think{.enabled = true, .level = value};
  }
  return fail(ErrorCode::kInvalidArgument,
              "invalid value for --think: \"{}\" (must be true, false, high, medium, low, or max)",
              value);
}

Result<api::Json> parse_format(const std::string& value) {
  if (value.empty()) return api::Json(nullptr);
  // As the server has it: a grammar's rules are told by their sign.
  if (value == "json" || value.contains("::=")) return api::Json(value);
  auto schema = api::parse_json(value);
  if (!schema || !schema->is_object()) {
    return fail(ErrorCode::kInvalidArgument,
                "invalid value for --format: must be json, a JSON schema or a GBNF grammar");
  }
  return schema;
}

Result<Session> make_session(const Arguments& arguments) {
  Session session;
  session.model = arguments[0];
  OLLAMA_ASSIGN(session.format, parse_format(arguments.text("format")));
  if (arguments.given("think")) {
    OLLAMA_ASSIGN(session.think, parse_think(arguments.text("think")));
    session.think_chosen = true;
  }
  if (!arguments.text("keepalive").empty()) {
    OLLAMA_ASSIGN(session.keep_alive, envconfig::parse_keep_alive(arguments.text("keepalive")));
  }
  session.hide_thinking = arguments.boolean("hidethinking");
  session.word_wrap = !arguments.boolean("nowordwrap");
  session.verbose = arguments.boolean("verbose");
  return session;
}

// Standard input that is no terminal comes first, then the arguments.
std::string join_prompt(const Arguments& arguments) {
  std::string prompt;
  if (!is_terminal(STDIN_FILENO)) {
    prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  }
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    if (!prompt.empty() || i > 1) prompt += ' ';
    prompt += arguments[i];
  }
  return prompt;
}

Result<> print_embedding(ModelHost& host, const Session& session, const Arguments& arguments) {
  if (session.prompt.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "embedding models require input text. Usage: ollama run {} \"your text here\"",
                session.model);
  }
  api::EmbedRequest request;
  request.model = session.model;
  request.input = {session.prompt};
  request.single_input = true;
  request.keep_alive = session.keep_alive;
  if (arguments.given("truncate")) request.truncate = arguments.boolean("truncate");
  const std::int64_t dimensions = arguments.number("dimensions");
  if (!std::in_range<std::int32_t>(dimensions)) {
    return fail(ErrorCode::kInvalidArgument, "invalid value for --dimensions: {} is out of range",
                dimensions);
  }
  request.dimensions = static_cast<std::int32_t>(dimensions);
  OLLAMA_ASSIGN(const api::EmbedResponse response, host.embed(request));
  if (response.embeddings.empty()) return fail(ErrorCode::kInternal, "no embeddings returned");
  std::string text;
  for (const float value : response.embeddings[0]) {
    text += std::format("{}{}", text.empty() ? "" : ",", value);
  }
  std::println("[{}]", text);
  return {};
}

// What a model was made with to begin every conversation.
void print_conversation(const std::vector<api::Message>& messages, const Session& session) {
  for (const api::Message& message : messages) {
    if (message.role == "user") std::println(">>> {}", message.content);
    if (message.role == "assistant") {
      AnswerPrinter({.word_wrap = session.word_wrap}, nullptr).add({}, message.content, {});
      std::println("\n");
    }
  }
}

Result<> converse(ModelHost& host, Session& session, const envconfig::Config& config,
                  const Arguments& arguments) {
  api::ShowRequest show;
  show.model = session.model;
  OLLAMA_ASSIGN(const api::ShowResponse model, host.show(show));
  session.parent_model = model.details.parent_model;
  if (!session.think_chosen && has_capability(model, "thinking")) {
    session.think = api::Think{.enabled = true, .level = {}};
  }
  if (has_capability(model, "embedding") && !has_capability(model, "completion")) {
    return print_embedding(host, session, arguments);
  }
  if (!is_terminal(STDIN_FILENO) || !is_terminal(STDOUT_FILENO) || !session.prompt.empty() ||
      arguments.size() > 1) {
    return generate_once(host, session);
  }
  OLLAMA_TRY(load_model(host, session));
  print_conversation(model.messages, session);
  return run_interactive(host, session, config);
}

Result<int> run(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(Session session, make_session(arguments));
  if (is_model_file(session.model)) {
    session.prompt = join_prompt(arguments);
    const auto host = file_host(expand_home(session.model), config);
    OLLAMA_TRY(converse(*host, session, config, arguments));
    return 0;
  }
  OLLAMA_ASSIGN(api::Client client, connect(config));
  session.prompt = join_prompt(arguments);
  api::ShowRequest show;
  show.model = session.model;
  if (const auto model = client.show(show);
      !model && model.error().code() == ErrorCode::kNotFound) {
    if (const auto pulled = pull_model(client, session.model, arguments.boolean("insecure"));
        !pulled) {
      return std::unexpected(
          pulled.error().with_context(std::format("model '{}' not found", session.model)));
    }
  }
  const auto host = server_host(client, config);
  OLLAMA_TRY(converse(*host, session, config, arguments));
  return 0;
}

}  // namespace

Command run_command(const envconfig::Config& config) {
  return {
      .name = "run",
      .usage = "MODEL [PROMPT]",
      .summary = "Run a model, by name or from a .gguf file",
      .min_arguments = 1,
      .max_arguments = Command::kAny,
      .flags =
          {{.name = "dimensions",
            .kind = FlagKind::kInt,
            .help = "Truncate output embeddings to specified dimension (embedding models only)"},
           {.name = "format", .kind = FlagKind::kString, .help = "json, a JSON schema or GBNF"},
           {.name = "hidethinking", .help = "Hide thinking output (if provided)"},
           {.name = "insecure", .help = "Use an insecure registry"},
           {.name = "keepalive",
            .kind = FlagKind::kString,
            .help = "Duration to keep a model loaded (e.g. 5m)"},
           {.name = "nowordwrap", .help = "Don't wrap words to the next line automatically"},
           {.name = "think",
            .kind = FlagKind::kString,
            .help = "Enable thinking: true/false, or high/medium/low/max where a model has levels",
            .implied = "true"},
           {.name = "truncate",
            .help = "For embedding models: truncate inputs exceeding context length (default: "
                    "true). Set --truncate=false to error instead"},
           {.name = "verbose", .help = "Show timings for response"}},
      .environment = {"OLLAMA_EDITOR", "OLLAMA_HOST", "OLLAMA_NOHISTORY"},
      .run = [&config](const Arguments& arguments) { return run(config, arguments); }};
}

}  // namespace ollama::cmd

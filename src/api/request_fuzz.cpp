// Arbitrary bytes as JSON, and that as every request of every API. What is accepted and can be
// written reads again as the same, and whatever was asked for, its answer can be told.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "api/anthropic.h"
#include "api/chat_format.h"
#include "api/openai.h"
#include "api/types.h"

namespace ollama::api {
namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// What is written may be spelled in other ways (3.0 as 3, half a character as U+FFFD), but only
// once.
template <typename T>
void survives(const T& request, Result<T> (*parse)(const Json&)) {
  const auto written = parse_json(to_string(to_json(request)));
  require(written.has_value());
  const auto again = parse(*written);
  require(again.has_value());
  const auto rewritten = parse_json(to_string(to_json(*again)));
  require(rewritten.has_value());
  require(to_string(*rewritten) == to_string(*written));
}

template <typename T>
void read(const Json& json, Result<T> (*parse)(const Json&)) {
  if (const auto request = parse(json)) survives(*request, parse);
}

std::vector<ChatResponse> answers() {
  ChatResponse response;
  response.model = "m";
  response.message.role = "assistant";
  response.message.content = "Hello";
  response.message.thinking = "Hm";
  response.message.tool_calls.push_back(
      {.id = "", .index = 0, .name = "f", .arguments = {{"a", 1}}});
  response.done = true;
  response.done_reason = "stop";
  return {response};
}

// Each event's data, a line of it, is JSON or "[DONE]".
void check_events(std::string_view text) {
  constexpr std::string_view kData = "data: ";
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (!line.starts_with(kData) || line == "data: [DONE]") continue;
    require(parse_json(line.substr(kData.size())).has_value());
  }
}

void read_foreign(const Json& json, Result<ForeignChat> (*parse)(const Json&)) {
  const auto told = answers();
  auto whole = parse(json);
  if (!whole) return;
  survives(whole->request, parse_chat_request);
  require(whole->choices > 0);
  require(parse_json(to_string(whole->format->whole(told))).has_value());
  const auto live = parse(json);
  require(live.has_value());
  check_events(live->format->piece(told.front(), 0));
  check_events(live->format->end());
  check_events(live->format->broken({500, "broken"}));
}

void check(std::string_view text) {
  const auto json = parse_json(text);
  if (!json) return;
  read(*json, parse_generate_request);
  read(*json, parse_chat_request);
  read(*json, parse_embed_request);
  read(*json, parse_embeddings_request);
  read(*json, parse_show_request);
  read(*json, parse_create_request);
  read(*json, parse_copy_request);
  read(*json, parse_delete_request);
  read(*json, parse_transfer_request);
  read(*json, parse_message);
  read(*json, parse_options_value);
  if (const auto* object = json->if_object()) (void)parse_logit_bias(*object);

  read_foreign(*json, openai::parse_chat);
  read_foreign(*json, openai::parse_responses);
  read_foreign(*json, anthropic::parse_messages);
  if (const auto counted = anthropic::parse_count_tokens(*json)) {
    survives(*counted, parse_chat_request);
  }
  if (const auto completion = openai::parse_completion(*json)) {
    survives(completion->request, parse_generate_request);
    require(completion->choices > 0 && completion->best_of >= completion->choices);
    require(completion->prompts.empty() || completion->token_prompts.empty());
  }
  if (const auto embeddings = openai::parse_embeddings(*json)) {
    survives(embeddings->request, parse_embed_request);
  }
}

}  // namespace
}  // namespace ollama::api

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ollama::api::check({reinterpret_cast<const char*>(data), size});
  return 0;
}

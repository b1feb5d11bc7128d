// Rendering a conversation of ten messages with templates that models carry, and parsing these.
#include <benchmark/benchmark.h>

#include <filesystem>
#include <format>
#include <fstream>
#include <sstream>

#include "chat/builtin.h"
#include "chat/jinja/template.h"

namespace {

using namespace ollama;

const api::JsonObject& fixture() {
  static const api::Json json = [] {
    std::ifstream file(std::filesystem::path(OLLAMA_TEST_DATA) / "chat" / "jinja.json");
    std::stringstream text;
    text << file.rdbuf();
    return api::parse_json(text.str()).value();
  }();
  return json.as_object();
}

api::JsonObject conversation() {
  api::JsonObject context{
      {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"add_generation_prompt", true}};
  boost::json::array messages;
  messages.push_back({{"role", "system"}, {"content", "You are a helpful assistant. Be brief."}});
  for (int i = 0; i < 9; ++i) {
    const std::string text = std::format(
        "Message {}: some sentences of text, as people and models write them to each other, with "
        "an "
        "end after a line or two.",
        i);
    messages.push_back(
        api::JsonObject{{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", text}});
  }
  context["messages"] = std::move(messages);
  return context;
}

void render(benchmark::State& state, const std::string& text) {
  const auto parsed = chat::JinjaTemplate::parse(text).value();
  const api::JsonObject context = conversation();
  std::size_t bytes = 0;
  for (auto _ : state) {
    auto result = parsed.render(context);
    if (!result) {
      state.SkipWithError(std::string(result.error().message()));
      break;
    }
    bytes = result->size();
    benchmark::DoNotOptimize(result);
  }
  state.SetLabel(std::format("{} bytes", bytes));
}

void parse(benchmark::State& state, const std::string& text) {
  for (auto _ : state) benchmark::DoNotOptimize(chat::JinjaTemplate::parse(text));
  state.SetLabel(std::format("{} bytes", text.size()));
}

const bool kRegistered = [] {
  for (const auto& model : fixture()) {
    const std::string text(model.value().as_object().at("template").as_string());
    // One that wants a variable which no conversation has.
    if (model.key().starts_with("fireworks")) continue;
    benchmark::RegisterBenchmark(std::format("render/{}", std::string_view(model.key())), render,
                                 text)
        ->Unit(benchmark::kMicrosecond);
  }
  for (const char* name : {"qwen3-coder", "qwen3.5", "gemma4-small", "harmony", "deepseek3.1"}) {
    benchmark::RegisterBenchmark(std::format("renderer/{}", name), render,
                                 *chat::builtin_template(name))
        ->Unit(benchmark::kMicrosecond);
  }
  for (const char* name : {"Qwen-Qwen3-0.6B", "openai-gpt-oss-120b"}) {
    const std::string text(fixture().at(name).as_object().at("template").as_string());
    benchmark::RegisterBenchmark(std::format("parse/{}", name), parse, text)
        ->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace

BENCHMARK_MAIN();

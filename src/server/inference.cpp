#include "server/inference.h"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>

#include "chat/builtin.h"
#include "chat/images.h"
#include "engine/pooling.h"
#include "runner/options.h"
#include "store/digest.h"

namespace ollama::server {

using api::Duration;

namespace {

constexpr std::size_t kMostFacts = 1024;    // models that are remembered
constexpr std::size_t kEnough = 64U << 10;  // bytes that go out without waiting for more

std::string_view reason_name(engine::DoneReason reason) {
  return reason == engine::DoneReason::kLength ? "length" : "stop";
}

api::Message message_of(std::string_view role, std::string_view content) {
  api::Message message;
  message.role = role;
  message.content = content;
  return message;
}

// Empty where no format is asked for: the runner judges what is.
std::string format_text(const api::Json& format) {
  const bool none = format.is_null() || (format.is_string() && format.get_string().empty());
  return none ? std::string() : api::to_string(format);
}

// All but the messages or the prompt.
runner::Generate to_generate(const api::InferenceRequest& request, const store::Model& model,
                             const api::Options& options) {
  runner::Generate generate;
  runner::apply_options(options, generate);
  if (request.logprobs) generate.sampling.logprobs = request.top_logprobs;
  generate.text_logprobs = request.text_logprobs;
  generate.shift = request.shift.value_or(true);
  generate.truncate = request.truncate.value_or(true);
  // A renderer comes before the model's template, as in Ollama, whose models with renderers have a
  // template that is no more than {{ .Prompt }}; a request's own template before both.
  if (request.template_text.empty()) {
    generate.template_text = model.template_text;
    generate.renderer = chat::resolve_renderer(model.config.renderer, model.name.display(),
                                               model.config.model_type);
  } else {
    generate.template_text = request.template_text;
  }
  generate.parser = model.config.parser;
  generate.format = format_text(request.format);
  generate.think = request.think;
  generate.take_apart = true;
  return generate;
}

// The conversation, behind what the model brings along.
void add_messages(const api::ChatRequest& request, const store::Model& model,
                  runner::Generate& generate) {
  const bool has_system = !request.messages.empty() && request.messages.front().role == "system";
  if (!has_system && !model.system.empty()) {
    generate.messages.push_back(message_of("system", model.system));
  }
  for (const auto* messages : {&model.messages, &request.messages}) {
    generate.messages.insert(generate.messages.end(), messages->begin(), messages->end());
  }
}

bool has_tools(const api::ChatRequest& request) {
  return request.tools.is_array() && !request.tools.get_array().empty();
}

// No model sees images yet. A prompt is shown with their places all the same.
std::optional<api::StatusError> problem_with_images(const api::InferenceRequest& request,
                                                    std::optional<api::StatusError> other) {
  if (request.debug_render_only) return other;
  return api::StatusError{400,
                          std::format("{} does not support images", json_quoted(request.model))};
}

// Keywords whose values are data, whatever they look like, and those that have a schema for each
// name.
constexpr std::array<std::string_view, 5> kDataKeywords{"const", "enum", "default", "example",
                                                        "examples"};
constexpr std::array<std::string_view, 6> kNamedSchemas{
    "properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"};

// A schema's references to itself, from where it is put into another.
void move_references(api::Json& schema, const std::string& place) {  // NOLINT(misc-no-recursion)
  if (auto* list = schema.if_array()) {
    for (api::Json& item : *list) move_references(item, place);
  } else if (auto* object = schema.if_object()) {
    for (auto& [key, value] : *object) {
      const std::string_view keyword = key;
      if (keyword == "$ref" && value.is_string() && value.get_string().starts_with('#')) {
        value = place + std::string(std::string_view(value.get_string()).substr(1));
      } else if (std::ranges::contains(kNamedSchemas, keyword) && value.is_object()) {
        for (auto& named : value.get_object()) move_references(named.value(), place);
      } else if (!std::ranges::contains(kDataKeywords, keyword)) {
        move_references(value, place);
      }
    }
  }
}

// What the arguments of a forced call have to meet: an object, and of a tool that names no
// parameters none of them.
api::Json forced_parameters(const api::Json& tool) {
  const auto given = tool.try_at_pointer("/function/parameters");
  if (given && !given->is_null() && !given->is_object()) return *given;  // its schema is refused
  api::JsonObject parameters =
      given && given->is_object() ? given->get_object() : api::JsonObject();
  const auto says = [&](std::initializer_list<const char*> keywords) {
    return std::ranges::any_of(keywords, [&](const char* one) { return parameters.contains(one); });
  };
  const bool combined = says({"$ref", "allOf", "anyOf", "oneOf", "enum", "const"});
  if (!combined) parameters.emplace("type", "object");
  const api::Json* properties = parameters.if_contains("properties");
  const bool none =
      properties == nullptr
          ? !combined && !says({"patternProperties", "propertyNames", "required", "minProperties"})
          : properties->is_object() && properties->get_object().empty();
  if (none) parameters.emplace("additionalProperties", false);
  return parameters;
}

// A choice that forces a call: of any tool, or of one of them.
struct ForcedCall {
  api::Json schema;  // null: nothing is forced
};
Result<ForcedCall> forced_call(const api::ChatRequest& request) {
  const api::Json& choice = request.tool_choice;
  if (choice.is_null() || choice == api::Json("auto") || choice == api::Json("none")) {
    return ForcedCall{};
  }
  // As chat completions name it, or as responses do: clients of the native API send either.
  const char* const path = choice.try_at_pointer("/function/name") ? "/function/name" : "/name";
  const auto named = choice.try_at_pointer(path);
  if (choice != api::Json("required") && !named) {
    return fail(ErrorCode::kInvalidArgument,
                "tool_choice must be \"auto\", \"none\", \"required\" or a function");
  }
  boost::json::array calls;
  if (const auto* tools = request.tools.if_array()) {
    for (const api::Json& tool : *tools) {
      const auto name = tool.try_at_pointer("/function/name");
      if (!name || (named && *named != *name)) continue;
      calls.emplace_back(api::JsonObject{
          {"type", "object"},
          {"properties", api::JsonObject{{"name", api::JsonObject{{"const", *name}}},
                                         {"arguments", forced_parameters(tool)}}},
          {"required", boost::json::array{"name", "arguments"}},
          {"additionalProperties", false}});
    }
  }
  if (calls.empty()) {
    return fail(ErrorCode::kInvalidArgument, "tool_choice asks for a tool that is not in tools");
  }
  const bool alone = calls.size() == 1;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    move_references(
        calls[i].at("properties").at("arguments"),
        alone ? "#/properties/arguments" : std::format("#/anyOf/{}/properties/arguments", i));
  }
  if (alone) return ForcedCall{std::move(calls.front())};
  return ForcedCall{api::JsonObject{{"anyOf", std::move(calls)}}};
}

// Several answers to one prompt: the same seed would give the same. After the greatest seed comes
// 0: a negative one is random.
void vary_seed(runner::Generate& generate, std::size_t choice) {
  constexpr std::uint64_t kGreatest = std::numeric_limits<std::int64_t>::max();
  std::int64_t& seed = generate.sampling.seed;
  if (seed >= 0) {
    seed = static_cast<std::int64_t>((static_cast<std::uint64_t>(seed) + choice) & kGreatest);
  }
}

// The text of an answer that is not told apart.
runner::Piece joined(runner::Piece into, runner::Piece&& piece) {
  into.text += piece.text;
  into.thinking += piece.thinking;
  std::ranges::move(piece.calls, std::back_inserter(into.calls));
  std::ranges::move(piece.logprobs, std::back_inserter(into.logprobs));
  return into;
}

// An answer without a token comes after all others.
double mean_logprob(const api::GenerateResponse& response) {
  if (response.logprobs.empty()) return -std::numeric_limits<double>::infinity();
  double sum = 0;
  for (const api::Logprob& logprob : response.logprobs) sum += logprob.logprob;
  return sum / static_cast<double>(response.logprobs.size());
}

// Of more answers the `count` with the highest mean log-probability of a token, best first. What
// the others cost is counted with the first.
std::vector<api::GenerateResponse> likeliest(std::vector<api::GenerateResponse> answers,
                                             std::size_t count) {
  if (answers.size() <= count) return answers;
  std::ranges::stable_sort(answers, std::greater<>(), mean_logprob);
  for (std::size_t i = count; i < answers.size(); ++i) {
    answers.front().metrics.eval_count += answers[i].metrics.eval_count;
  }
  answers.erase(answers.begin() + static_cast<std::ptrdiff_t>(count), answers.end());
  return answers;
}

}  // namespace

std::string json_quoted(std::string_view text) {
  return boost::json::serialize(boost::json::string(text));
}

std::string_view missing_text(const Error& error, std::string_view name,
                              std::string_view not_found) {
  const bool all = error.message() == std::format("model '{}' not found", name);
  return all ? not_found : error.message();
}

// ---- Models

namespace {

// What is remembered is had at once: another thread costs more than looking at two files.
Task<Result<store::Model>> resolve(Services& services, const std::string& name) {
  if (auto known = services.store.recall(name)) co_return std::move(*known);
  co_return co_await services.reading.run([&] { return services.store.resolve(name); });
}

}  // namespace

Task<std::optional<store::Model>> Inference::find_model(Exchange& x, const std::string& name,
                                                        api::StatusError when_missing,
                                                        std::string_view not_found) {
  if (name.empty()) {
    co_await x.respond_error(when_missing.status, when_missing.message);
    co_return std::nullopt;
  }
  auto model = co_await resolve(services_, name);
  if (!model && model.error().code() == ErrorCode::kNotFound) {
    co_await x.respond_error(404, missing_text(model.error(), name, not_found));
    co_return std::nullopt;
  }
  if (!model) {
    co_await x.respond_error(model.error());
    co_return std::nullopt;
  }
  if (!model->config.remote_host.empty()) {
    co_await x.respond_error(501, std::format("model '{}' runs in Ollama's cloud, which this "
                                              "server has no connection to",
                                              name));
    co_return std::nullopt;
  }
  co_return std::move(*model);
}

Task<std::optional<store::Model>> Inference::find_model(Exchange& x, const std::string& name) {
  co_return co_await find_model(x, name, {400, "model is required"},
                                std::format("model '{}' not found", name));
}

Task<std::optional<sched::Lease>> Inference::lease(Exchange& x, const store::Model& model,
                                                   const api::Options& options,
                                                   std::optional<Duration> keep_alive) {
  auto outcome = co_await acquire(
      services_, x,
      {.model = to_load(services_, model, options), .keep_alive = keep_alive, .progress = {}});
  if (auto* granted = std::get_if<sched::Lease>(&outcome)) co_return std::move(*granted);
  if (const auto* error = std::get_if<Error>(&outcome)) {
    // Its queue and shutdown are 503; a runner that died while loading is the server's trouble.
    const bool busy = error->message() == sched::kQueueFull.message ||
                      error->message() == sched::kShuttingDown.message;
    const api::StatusError status = busy ? api::status_error(*error) : answer_error(*error);
    co_await x.respond_error(status.status == 404 ? 500 : status.status, status.message);
  }
  co_return std::nullopt;
}

// As `lease`, for a model that is to answer with text; `purpose` is what an embedding model cannot
// do.
Task<std::optional<sched::Lease>> Inference::lease_for(Exchange& x,
                                                       const api::InferenceRequest& request,
                                                       const store::Model& model,
                                                       const api::Options& options,
                                                       std::string_view purpose) {
  auto granted = co_await lease(x, model, options, request.keep_alive);
  if (granted && granted->info().is_embedding) {
    co_await x.respond_error(
        400, std::format("{} does not support {}", json_quoted(request.model), purpose));
    co_return std::nullopt;
  }
  co_return granted;
}

Task<Result<store::Facts>> Inference::facts(const store::Model& model,
                                            const api::InferenceRequest& request) {
  std::string key = model.digest;
  if (!request.template_text.empty()) key += store::digest_of(request.template_text).hex();
  if (const auto known = facts_.find(key); known != facts_.end()) co_return known->second;
  store::Model asked = model;
  if (!request.template_text.empty()) asked.template_text = request.template_text;
  auto found = co_await services_.blocking.run([&] { return services_.store.facts(asked); });
  if (found) {
    if (facts_.size() >= kMostFacts) facts_.clear();
    facts_[key] = *found;
  }
  co_return found;
}

Task<> Inference::describe(api::ListModel& listed) {
  store::Facts told;
  if (const auto known = facts_.find(listed.digest); known != facts_.end()) {
    told = known->second;
  } else {
    const auto model = co_await resolve(services_, listed.name);
    // Its manifest may be another by now.
    if (!model || model->digest != listed.digest) co_return;
    told = (co_await facts(*model, {})).value_or(store::Facts());
  }
  listed.capabilities = std::move(told.capabilities);
  listed.details.context_length = told.context_length;
  listed.details.embedding_length = told.embedding_length;
}

Task<std::optional<api::StatusError>> Inference::check(const store::Model& model,
                                                       api::InferenceRequest& request, bool tools,
                                                       bool insert, bool raw) {
  if (request.top_logprobs < 0 || request.top_logprobs > sample::kMostLogprobs) {
    co_return api::StatusError{
        400, std::format("top_logprobs must be between 0 and {}", sample::kMostLogprobs)};
  }
  const std::string_view renderer =
      request.template_text.empty() ? model.config.renderer : std::string_view();
  const auto known = chat::check_builtin(renderer, model.config.parser);
  if (!known && !raw) {
    co_return api::StatusError{
        400, std::format("model '{}': {}", request.model, known.error().message())};
  }
  const auto known_facts = co_await facts(model, request);
  if (!known_facts) co_return api::status_error(known_facts.error());
  const std::vector<std::string>& has = known_facts->capabilities;
  const auto lacks = [&](bool wanted, std::string_view what) {
    return wanted && !std::ranges::contains(has, what);
  };
  const auto without = [&](std::string_view what) {
    return api::StatusError{
        400, std::format("{} does not support {}", json_quoted(request.model), what)};
  };
  if (lacks(tools, "tools")) co_return without("tools");
  if (lacks(insert, "insert")) co_return without("insert");
  if (lacks(request.think && request.think->enabled, "thinking")) {
    if (request.may_not_think) {
      request.think = api::Think{};
      co_return std::nullopt;
    }
    co_return without("thinking");
  }
  if (!request.think && !lacks(true, "thinking")) {
    request.think = api::Think{.enabled = true, .level = {}};
  }
  co_return std::nullopt;
}

// ---- Answers

Task<bool> Inference::tell(Exchange& x, const sched::Lease& lease, runner::Generate generate,
                           bool stream, const Telling& telling) {
  generate.want_begun = stream && telling.begin;
  Answer events(x, lease, std::move(generate), services_.blocking.loop());
  runner::Piece collected;
  std::string text;
  std::size_t calls = 0;
  const auto asked = Clock::now();
  std::optional<Metrics::Seconds> first;
  while (true) {
    Answer::Event event = co_await events.next();
    if (const auto* begun = std::get_if<runner::Begun>(&event)) {
      text += telling.begin(*begun);
      if (text.empty()) continue;
      if (!x.started()) co_await x.begin_stream(telling.stream_type);
      if (!co_await x.write(std::exchange(text, {}))) co_return false;
      continue;
    }
    if (!first) first = Clock::now() - asked;
    if (std::holds_alternative<Gone>(event)) co_return false;
    if (auto* piece = std::get_if<runner::Piece>(&event)) {
      if (!telling.parallel_tools && calls + piece->calls.size() > 1) {
        piece->calls.resize(1 - std::min<std::size_t>(calls, 1));
      }
      calls += piece->calls.size();
      if (!stream) {
        collected = joined(std::move(collected), std::move(*piece));
        continue;
      }
      text += telling.piece(std::move(*piece));
      // Pieces that wait already go out together.
      if (text.empty() || (events.ready() && text.size() < kEnough)) continue;
      if (!x.started()) co_await x.begin_stream(telling.stream_type);
      if (!co_await x.write(std::exchange(text, {}))) co_return false;
      continue;
    }
    if (const auto* error = std::get_if<Error>(&event)) {
      const api::StatusError status = answer_error(*error);
      if (!x.started() && text.empty()) {
        co_await x.respond_error(status.status, status.message);
        co_return false;
      }
      text += telling.broken(status);
      if (!x.started()) co_await x.begin_stream(telling.stream_type);
      co_await x.write(text);
      co_await x.end_stream();
      co_return false;
    }
    auto& done = std::get<runner::Done>(event);
    services_.metrics.generated(telling.model, done.stats, *first);
    text += telling.last(done, std::move(collected));
    if (stream) {
      if (!x.started()) co_await x.begin_stream(telling.stream_type);
      co_return co_await x.write(text);
    }
    co_return true;
  }
}

Task<bool> Inference::tell_choices(Exchange& x, const sched::Lease& lease, const std::string& model,
                                   const runner::Generate& generate, const api::ForeignChat& chat,
                                   Times times) {
  const bool stream = chat.request.streaming();
  std::vector<api::ChatResponse> whole;
  const auto response_of = [&](runner::Piece&& piece) {
    api::ChatResponse response;
    response.model = chat.request.model;
    response.created_at = api::now();
    response.message.role = "assistant";
    response.message.content = std::move(piece.text);
    response.message.thinking = std::move(piece.thinking);
    response.message.tool_calls = std::move(piece.calls);
    response.logprobs = std::move(piece.logprobs);
    for (api::ToolCall& call : response.message.tool_calls) call.id = api::new_call_id();
    return response;
  };
  for (std::size_t choice = 0; choice < chat.choices; ++choice) {
    Telling telling{.model = model,
                    .stream_type = chat.format->stream_type(),
                    .parallel_tools = chat.parallel_tools,
                    .piece = {},
                    .last = {},
                    .broken = [&](const auto& error) { return chat.format->broken(error); }};
    telling.begin = [&](const runner::Begun& begun) {
      api::Metrics prompt;
      prompt.prompt_eval_count = begun.prompt_tokens;
      prompt.prompt_eval_cached_count = begun.cached_tokens;
      return chat.format->begin(prompt);
    };
    telling.piece = [&](runner::Piece&& piece) {
      return chat.format->piece(response_of(std::move(piece)), choice);
    };
    telling.last = [&](runner::Done& done, runner::Piece&& collected) {
      api::ChatResponse response = response_of(std::move(collected));
      response.done = true;
      response.done_reason = reason_name(done.reason);
      response.stopped_by = std::move(done.stats.stopped_by);
      response.metrics = metrics_of(done, times.start, times.loaded);
      if (stream) return chat.format->piece(response, choice);
      whole.push_back(std::move(response));
      return std::string();
    };
    runner::Generate one = generate;
    vary_seed(one, choice);
    if (!co_await tell(x, lease, std::move(one), stream, telling)) co_return false;
  }
  if (!stream) {
    co_await x.respond_json(200, chat.format->whole(whole));
    co_return true;
  }
  if (const std::string end = chat.format->end(); !end.empty()) co_await x.write(end);
  co_await x.end_stream();
  co_return true;
}

Task<> Inference::chat(Exchange& x, api::ForeignChat chat) {
  const auto start = Clock::now();
  api::ChatRequest& request = chat.request;
  const auto model = co_await find_model(x, request.model);
  if (!model) co_return;

  api::ChatResponse response;
  response.model = request.model;
  response.message.role = "assistant";
  response.done = true;
  response.created_at = api::now();
  const api::Options options = merged_options(*model, request.parsed_options);
  if (request.messages.empty() && request.keep_alive == Duration::zero()) {
    services_.scheduler.unload(to_load(services_, *model, options).key);
    response.done_reason = "unload";
    co_await x.respond_json(200, api::to_json(response));
    co_return;
  }
  if (request.tool_choice == api::Json("none")) request.tools = nullptr;
  const auto forced = forced_call(request);
  if (!forced) {
    co_await x.respond_error(forced.error());
    co_return;
  }
  auto problem = co_await check(*model, request, has_tools(request), false);
  if (std::ranges::any_of(request.messages, [](const auto& m) { return !m.images.empty(); })) {
    problem = problem_with_images(request, std::move(problem));
  }
  if (problem) {
    co_await x.respond_error(problem->status, problem->message);
    co_return;
  }
  const auto granted = co_await lease_for(x, request, *model, options, "chat");
  if (!granted) co_return;
  const auto loaded = Clock::now();
  if (request.messages.empty()) {
    response.created_at = api::now();
    response.done_reason = "load";
    co_await x.respond_json(200, api::to_json(response));
    co_return;
  }
  runner::Generate generate = to_generate(request, *model, options);
  if (has_tools(request)) generate.tools = request.tools;
  if (!forced->schema.is_null()) {
    // Nothing but a call can come, in the plainest way to write one.
    generate.format = api::to_string(forced->schema);
    generate.plain_calls = true;
    generate.think = api::Think{};
  }
  add_messages(request, *model, generate);
  if (request.debug_render_only) {
    auto prompt = co_await rendered(x, *granted, std::move(generate));
    if (!prompt) co_return;
    api::ChatResponse shown;
    shown.model = request.model;
    shown.created_at = api::now();
    shown.debug_info = std::move(prompt);
    co_await x.respond_json(200, api::to_json(shown));
    co_return;
  }
  co_await tell_choices(x, *granted, model->name.display(), generate, chat, {start, loaded});
}

Task<> Inference::generate(Exchange& x, api::GenerateRequest request) {
  const auto start = Clock::now();
  const std::string not_found = std::format("model '{}' not found", request.model);
  const auto model = co_await find_model(x, request.model, {404, not_found}, not_found);
  if (!model) co_return;

  api::GenerateResponse response;
  response.model = request.model;
  response.done = true;
  response.created_at = api::now();
  const api::Options options = merged_options(*model, request.parsed_options);
  if (request.prompt.empty() && request.keep_alive == Duration::zero()) {
    services_.scheduler.unload(to_load(services_, *model, options).key);
    response.done_reason = "unload";
    co_await x.respond_json(200, api::to_json(response));
    co_return;
  }
  if (request.raw &&
      (!request.template_text.empty() || !request.system.empty() || !request.context.empty())) {
    co_await x.respond_error(400, "raw mode does not support template, system, or context");
    co_return;
  }
  auto problem =
      co_await check(*model, request, false, !request.suffix.empty() && !request.raw, request.raw);
  if (!request.images.empty()) problem = problem_with_images(request, std::move(problem));
  if (problem) {
    co_await x.respond_error(problem->status, problem->message);
    co_return;
  }
  const auto granted = co_await lease_for(x, request, *model, options, "generate");
  if (!granted) co_return;
  const Times times{start, Clock::now()};
  if (request.prompt.empty()) {
    response.created_at = api::now();
    response.done_reason = "load";
    co_await x.respond_json(200, api::to_json(response));
    co_return;
  }

  runner::Generate generate = to_generate(request, *model, options);
  generate.raw = request.raw;
  generate.want_context = !request.raw;
  if (request.raw) {
    generate.prompt = request.prompt;
    generate.take_apart = false;
  } else if (!request.suffix.empty()) {
    generate.prompt = request.prompt;
    generate.suffix = request.suffix;
    generate.context = request.context;
  } else {
    generate.context = request.context;
    const std::string& system = request.system.empty() ? model->system : request.system;
    if (!system.empty()) generate.messages.push_back(message_of("system", system));
    if (request.context.empty()) {
      generate.messages.insert(generate.messages.end(), model->messages.begin(),
                               model->messages.end());
    }
    generate.messages.push_back(message_of("user", request.prompt));
    generate.messages.back().images = request.images;
  }
  if (request.debug_render_only) {
    // Images that have no place in the prompt are counted, too, as in Ollama.
    const std::size_t elsewhere =
        request.raw || !request.suffix.empty() ? request.images.size() : 0;
    auto prompt = co_await rendered(x, *granted, std::move(generate));
    if (!prompt) co_return;
    prompt->image_count += static_cast<std::int64_t>(elsewhere);
    response.done = false;
    response.created_at = api::now();
    response.debug_info = std::move(prompt);
    co_await x.respond_json(200, api::to_json(response));
    co_return;
  }
  const bool stream = request.streaming();
  Telling telling{
      .model = model->name.display(),
      .stream_type = kNdjson,
      .piece =
          [&](runner::Piece&& piece) {
            api::GenerateResponse next;
            next.model = request.model;
            next.created_at = api::now();
            next.response = std::move(piece.text);
            next.thinking = std::move(piece.thinking);
            next.logprobs = std::move(piece.logprobs);
            return api::to_string(api::to_json(next)) + '\n';
          },
      .last = {},
      .broken = [](const auto& error) { return api::to_string(api::to_json(error)) + '\n'; }};
  telling.last = [&](runner::Done& done, runner::Piece&& collected) {
    response.created_at = api::now();
    response.response = std::move(collected.text);
    response.thinking = std::move(collected.thinking);
    response.logprobs = std::move(collected.logprobs);
    response.done_reason = reason_name(done.reason);
    response.context = std::move(done.context);
    response.metrics = metrics_of(done, times.start, times.loaded);
    return stream ? api::to_string(api::to_json(response)) + '\n' : std::string();
  };
  if (!co_await tell(x, *granted, std::move(generate), stream, telling)) co_return;
  if (stream) {
    co_await x.end_stream();
  } else {
    co_await x.respond_json(200, api::to_json(response));
  }
}

// ---- Completions

Task<> Inference::complete(Exchange& x, api::openai::Completion completion) {
  const auto start = Clock::now();
  api::GenerateRequest& request = completion.request;
  const auto model = co_await find_model(x, request.model);
  if (!model) co_return;
  request.think = api::Think{};  // there is no place for it in the answer
  const api::Options options = merged_options(*model, request.parsed_options);
  if (const auto problem = co_await check(*model, request, false, !request.suffix.empty())) {
    co_await x.respond_error(problem->status, problem->message);
    co_return;
  }
  const auto granted = co_await lease_for(x, request, *model, options, "completions");
  if (!granted) co_return;
  const Times times{start, Clock::now()};
  // Tokens are evaluated as they are; only who wants their text back is told it.
  const std::vector<std::vector<runner::Token>>& tokens = completion.token_prompts;
  for (const std::vector<runner::Token>& one : tokens) {
    std::string& text = completion.prompts.emplace_back();
    if (!completion.echo) continue;
    auto decoded = co_await detokenize(x, *granted, one);
    if (!decoded) co_return;
    text = std::move(*decoded);
  }

  const bool stream = request.streaming();
  api::openai::CompletionFormat format(request.model, completion.include_usage, completion.choices);
  std::vector<api::GenerateResponse> whole;
  std::size_t index = 0;
  for (std::size_t number = 0; number < completion.prompts.size(); ++number) {
    const std::string& prompt = completion.prompts[number];
    std::vector<api::GenerateResponse> answers;
    for (std::size_t choice = 0; choice < completion.best_of; ++choice, ++index) {
      runner::Generate generate = to_generate(request, *model, options);
      generate.take_apart = false;
      if (completion.best_of > completion.choices && !request.logprobs) {
        generate.sampling.logprobs = 0;  // to choose by
      }
      vary_seed(generate, choice);
      if (number < tokens.size()) {
        generate.tokens = tokens[number];
      } else if (request.suffix.empty()) {
        if (!model->system.empty()) {
          generate.messages.push_back(message_of("system", model->system));
        }
        generate.messages.push_back(message_of("user", prompt));
      } else {
        generate.prompt = prompt;
        generate.suffix = request.suffix;
      }
      std::string echo = completion.echo ? prompt : std::string();
      if (stream) format.begin(index, echo);
      const auto piece_of = [&](runner::Piece&& piece) {
        api::GenerateResponse response;
        response.response = std::exchange(echo, {}) + piece.text;
        response.logprobs = std::move(piece.logprobs);
        return response;
      };
      Telling telling{.model = model->name.display(),
                      .stream_type = api::kEventStream,
                      .piece =
                          [&](runner::Piece&& piece) {
                            return format.piece(piece_of(std::move(piece)), index);
                          },
                      .last = {},
                      .broken =
                          [](const auto& error) {
                            return std::format("data: {}\n\n",
                                               api::to_string(api::openai::error_json(error)));
                          }};
      telling.last = [&](runner::Done& done, runner::Piece&& collected) {
        api::GenerateResponse response = piece_of(std::move(collected));
        response.done = true;
        response.done_reason = reason_name(done.reason);
        response.metrics = metrics_of(done, times.start, times.loaded);
        if (stream) return format.piece(response, index);
        answers.push_back(std::move(response));
        return std::string();
      };
      if (!co_await tell(x, *granted, std::move(generate), stream, telling)) co_return;
    }
    for (api::GenerateResponse& answer : likeliest(std::move(answers), completion.choices)) {
      format.begin(whole.size(), completion.echo ? std::string_view(prompt) : std::string_view());
      if (!request.logprobs) answer.logprobs.clear();
      whole.push_back(std::move(answer));
    }
  }
  if (!stream) {
    co_await x.respond_json(200, format.whole(whole));
    co_return;
  }
  co_await x.write(format.end());
  co_await x.end_stream();
}

// ---- Questions to a runner

namespace {

// The answer to one question; nullopt when an error was told, or nobody waits.
template <typename T>
Task<std::optional<T>> answer_to(Services& services, Exchange& x,
                                 std::function<void(std::function<void(Result<T>)>)> ask) {
  auto box = std::make_shared<Mailbox<Result<T>>>(services.blocking.loop());
  x.on_disconnect([box] { box->push(fail(ErrorCode::kCancelled, "nobody waits")); });
  ask([box](Result<T> result) { box->push(std::move(result)); });
  auto result = co_await box->pop();
  if (result) co_return std::move(*result);
  if (result.error().code() != ErrorCode::kCancelled) {
    const api::StatusError status = answer_error(result.error());
    co_await x.respond_error(status.status, status.message);
  }
  co_return std::nullopt;
}

}  // namespace

Task<std::optional<runner::Text>> Inference::render(Exchange& x, const sched::Lease& lease,
                                                    runner::Generate generate) {
  co_return co_await answer_to<runner::Text>(services_, x, [&](auto done) {
    lease.runner().render(std::move(generate), std::move(done));
  });
}

Task<std::optional<std::vector<runner::Token>>> Inference::tokenize(Exchange& x,
                                                                    const sched::Lease& lease,
                                                                    runner::Tokenize request) {
  co_return co_await answer_to<std::vector<runner::Token>>(services_, x, [&](auto done) {
    lease.runner().tokenize(std::move(request), std::move(done));
  });
}

Task<std::optional<std::string>> Inference::detokenize(Exchange& x, const sched::Lease& lease,
                                                       std::vector<runner::Token> tokens) {
  co_return co_await answer_to<std::string>(services_, x, [&](auto done) {
    lease.runner().detokenize({.id = 0, .tokens = std::move(tokens)}, std::move(done));
  });
}

Task<std::optional<runner::Embedded>> Inference::rank(Exchange& x, const sched::Lease& lease,
                                                      runner::Rank request) {
  runner::Id id = 0;
  auto scores = co_await answer_to<runner::Embedded>(services_, x, [&](auto done) {
    id = lease.runner().rank(std::move(request), std::move(done));
  });
  if (scores) {
    services_.metrics.evaluated(lease.model().name, scores->tokens);
  } else {
    lease.runner().cancel(id);
  }
  co_return scores;
}

Task<std::optional<api::DebugInfo>> Inference::rendered(Exchange& x, const sched::Lease& lease,
                                                        runner::Generate generate) {
  auto prompt = co_await render(x, lease, std::move(generate));
  if (!prompt) co_return std::nullopt;
  co_return api::DebugInfo{.rendered_template = std::move(prompt->text),
                           .image_count = static_cast<std::int64_t>(prompt->images)};
}

Task<std::optional<std::size_t>> Inference::count_tokens(Exchange& x,
                                                         const api::ChatRequest& given) {
  api::ChatRequest request = given;
  const auto model = co_await find_model(x, request.model);
  if (!model) co_return std::nullopt;
  const api::Options options = merged_options(*model, request.parsed_options);
  if (const auto problem = co_await check(*model, request, has_tools(request), false)) {
    co_await x.respond_error(problem->status, problem->message);
    co_return std::nullopt;
  }
  const auto granted = co_await lease_for(x, request, *model, options, "chat");
  if (!granted) co_return std::nullopt;
  runner::Generate generate = to_generate(request, *model, options);
  generate.truncate = false;
  if (has_tools(request)) generate.tools = request.tools;
  add_messages(request, *model, generate);
  auto prompt = co_await render(x, *granted, std::move(generate));
  if (!prompt) co_return std::nullopt;
  const auto tokens = co_await tokenize(
      x, *granted,
      {.id = 0, .text = std::move(prompt->text), .add_special = true, .parse_special = true});
  if (!tokens) co_return std::nullopt;
  co_return tokens->size() + chat::kImageTokens * prompt->images;
}

Task<std::optional<api::EmbedResponse>> Inference::embeddings(Exchange& x,
                                                              const store::Model& model,
                                                              const api::EmbedRequest& request,
                                                              std::vector<runner::Embed> inputs) {
  const auto start = Clock::now();
  if (inputs.size() > kMostTexts) {
    co_await x.respond_error(
        400, std::format("{} inputs are more than {}: send them in several requests", inputs.size(),
                         kMostTexts));
    co_return std::nullopt;
  }
  const auto granted =
      co_await lease(x, model, merged_options(model, request.parsed_options), request.keep_alive);
  if (!granted) co_return std::nullopt;
  api::EmbedResponse response;
  response.model = request.model;
  response.load_duration = Clock::now() - start;
  auto embedded = co_await embed(x, *granted, std::move(inputs));
  if (!embedded) co_return std::nullopt;
  for (runner::Embedded& one : *embedded) {
    if (!std::ranges::all_of(one.values, [](float value) { return std::isfinite(value); })) {
      co_await x.respond_error(500, "embedding contains NaN or Inf values");
      co_return std::nullopt;
    }
    if (request.dimensions > 0 && std::cmp_less(request.dimensions, one.values.size())) {
      one.values.resize(static_cast<std::size_t>(request.dimensions));
    }
    engine::normalize(one.values);
    response.prompt_eval_count += one.tokens;
    response.embeddings.push_back(std::move(one.values));
  }
  response.total_duration = Clock::now() - start;
  co_return response;
}

Task<std::optional<std::vector<runner::Embedded>>> Inference::embed(
    Exchange& x, const sched::Lease& lease, std::vector<runner::Embed> inputs) {
  if (lease.info().ranks) {
    co_await x.respond_error(
        400, "the model ranks documents and gives no embeddings: ask /v1/rerank instead");
    co_return std::nullopt;
  }
  using Event = std::pair<std::size_t, Result<runner::Embedded>>;
  auto box = std::make_shared<Mailbox<std::optional<Event>>>(services_.blocking.loop());
  x.on_disconnect([box] { box->push(std::nullopt); });
  std::vector<runner::Embedded> results(inputs.size());
  std::vector<runner::Id> ids;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    ids.push_back(lease.runner().embed(
        std::move(inputs[i]),
        [box, i](Result<runner::Embedded> result) { box->push(Event(i, std::move(result))); }));
  }
  // Nobody reads the others.
  const auto cancel = [&] {
    for (const runner::Id id : ids) lease.runner().cancel(id);
  };
  for (std::size_t left = results.size(); left > 0; --left) {
    auto event = co_await box->pop();
    if (!event) {
      cancel();
      co_return std::nullopt;
    }
    auto& [index, result] = *event;
    if (!result) {
      cancel();
      const api::StatusError status = answer_error(result.error());
      co_await x.respond_error(status.status, status.message);
      co_return std::nullopt;
    }
    results[index] = std::move(*result);
  }
  std::uint64_t tokens = 0;
  for (const runner::Embedded& one : results) tokens += one.tokens;
  services_.metrics.evaluated(lease.model().name, tokens);
  co_return results;
}

}  // namespace ollama::server

// OpenAI's API: /v1/...
#include <boost/json/array.hpp>

#include "api/anthropic.h"
#include "api/openai.h"
#include "server/inference.h"

namespace ollama::server {
namespace {

class OpenAi {
 public:
  OpenAi(Services& services, Inference& inference) : services_(services), inference_(inference) {}

  Task<> chat(Exchange& x) { co_await answer(x, api::openai::parse_chat); }
  Task<> responses(Exchange& x) { co_await answer(x, api::openai::parse_responses); }

  Task<> completions(Exchange& x) {
    auto completion = co_await parse_body(services_, x.request(), api::openai::parse_completion);
    if (!completion) {
      co_await x.respond_error(completion.error());
    } else {
      co_await inference_.complete(x, std::move(*completion));
    }
  }

  Task<> embeddings(Exchange& x) {
    auto parsed = co_await parse_body(services_, x.request(), api::openai::parse_embeddings);
    if (!parsed) {
      co_await x.respond_error(parsed.error());
      co_return;
    }
    api::EmbedRequest& request = parsed->request;
    const auto model = co_await inference_.find_model(x, request.model);
    if (!model) co_return;
    std::vector<runner::Embed> inputs;
    for (std::string& text : request.input) {
      inputs.push_back({.id = 0, .text = std::move(text), .tokens = {}, .truncate = true});
    }
    for (auto& tokens : parsed->tokens) {
      inputs.push_back({.id = 0, .text = {}, .tokens = std::move(tokens), .truncate = true});
    }
    const auto response = co_await inference_.embeddings(x, *model, request, std::move(inputs));
    if (response) {
      co_await x.respond_json(200, api::openai::embeddings_json(*response, parsed->base64));
    }
  }

  Task<> models(Exchange& x) {
    const auto list = co_await services_.blocking.run([this] { return services_.store.list(); });
    if (!list) {
      co_await x.respond_error(list.error());
    } else {
      co_await x.respond_json(200, is_anthropic(x.request()) ? api::anthropic::models_json(*list)
                                                             : api::openai::models_json(*list));
    }
  }

  Task<> model(Exchange& x) {
    std::string name = x.request().parameters.at("model");
    const auto name_space = x.request().parameters.find("namespace");
    if (name_space != x.request().parameters.end()) name = name_space->second + "/" + name;
    const auto found =
        co_await services_.blocking.run([&] { return services_.store.resolve(name); });
    if (!found) {
      co_await x.respond_error(404, std::format("model '{}' not found", name));
      co_return;
    }
    if (is_anthropic(x.request())) {
      co_await x.respond_json(200, api::anthropic::model_json(name, found->modified_at));
      co_return;
    }
    const bool library = found->name.name_space() == store::kDefaultNamespace;
    co_await x.respond_json(
        200, api::openai::model_json(name, found->modified_at,
                                     library ? "library" : found->name.name_space()));
  }

 private:
  Task<> answer(Exchange& x, Result<api::ForeignChat> (*parse)(const api::Json&)) {
    auto chat = co_await parse_body(services_, x.request(), parse);
    if (!chat) {
      co_await x.respond_error(chat.error());
    } else {
      co_await inference_.chat(x, std::move(*chat));
    }
  }

  Services& services_;
  Inference& inference_;
};

}  // namespace

std::vector<Route> openai_routes(Services& services, Inference& inference) {
  const auto self = std::make_shared<OpenAi>(services, inference);
  const auto route = [&](std::string method, std::string pattern,
                         Task<> (OpenAi::*handler)(Exchange&)) {
    return Route{.method = std::move(method),
                 .pattern = std::move(pattern),
                 .handler = [self, handler](Exchange& x) { return (*self.*handler)(x); }};
  };
  return {route("POST", "/v1/chat/completions", &OpenAi::chat),
          route("POST", "/v1/completions", &OpenAi::completions),
          route("POST", "/v1/embeddings", &OpenAi::embeddings),
          route("POST", "/v1/responses", &OpenAi::responses),
          route("GET", "/v1/models", &OpenAi::models),
          route("GET", "/v1/models/:model", &OpenAi::model),
          route("GET", "/v1/models/:namespace/:model", &OpenAi::model)};
}

}  // namespace ollama::server

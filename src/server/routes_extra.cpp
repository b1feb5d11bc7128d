// What other servers of models offer beside the three APIs: reranking, and a tokenizer to ask.
#include <algorithm>
#include <boost/json/array.hpp>
#include <cmath>
#include <numeric>

#include "api/fields.h"
#include "engine/pooling.h"
#include "server/inference.h"

namespace ollama::server {
// Outside of the unnamed namespace, whose types GCC 14 cannot make coroutines of.
struct RerankRequest {
  std::string model;
  std::string query;
  std::vector<std::string> documents;
  std::size_t top_n = 0;  // 0: all
  bool return_documents = false;
  bool raw_scores = false;
};

struct TokenizeRequest {
  std::string model;
  std::string content;
  bool add_special = false;
  bool parse_special = true;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<std::int32_t> tokens;
};

namespace {

using boost::json::array;

// Jina's and Cohere's: documents are texts, or objects with a text. "raw_scores" is
// text-embeddings-inference's.
Result<RerankRequest> parse_rerank(const api::Json& json) {
  api::Fields fields(json);
  RerankRequest request;
  fields.read("model", request.model);
  fields.read("query", request.query);
  fields.read("top_n", request.top_n);
  fields.read("return_documents", request.return_documents);
  fields.read("raw_scores", request.raw_scores);
  fields.each("documents", [&](const api::Json& item) -> Result<> {
    const auto* text = item.if_string();
    if (const auto* object = item.if_object()) {
      const auto* inner = object->if_contains("text");
      text = inner == nullptr ? nullptr : inner->if_string();
    }
    if (text == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "\"documents\" must hold texts");
    }
    request.documents.emplace_back(*text);
    return {};
  });
  OLLAMA_ASSIGN(request, std::move(fields).finish(std::move(request)));
  if (request.query.empty()) return fail(ErrorCode::kInvalidArgument, "query is required");
  if (request.documents.empty()) return fail(ErrorCode::kInvalidArgument, "documents are required");
  if (request.documents.size() > kMostTexts) {
    return fail(ErrorCode::kInvalidArgument, "{} documents are more than {}",
                request.documents.size(), kMostTexts);
  }
  return request;
}

Result<TokenizeRequest> parse_tokenize(const api::Json& json) {
  api::Fields fields(json);
  TokenizeRequest request;
  fields.read("model", request.model);
  fields.read("content", request.content);
  if (fields.find("prompt")) fields.read("prompt", request.content);
  fields.read("add_special", request.add_special);
  if (fields.find("add_special_tokens")) fields.read("add_special_tokens", request.add_special);
  fields.read("parse_special", request.parse_special);
  const bool given = fields.find("content") != nullptr || fields.find("prompt") != nullptr;
  OLLAMA_ASSIGN(request, std::move(fields).finish(std::move(request)));
  if (!given) return fail(ErrorCode::kInvalidArgument, "content is required");
  return request;
}

Result<DetokenizeRequest> parse_detokenize(const api::Json& json) {
  api::Fields fields(json);
  DetokenizeRequest request;
  fields.read("model", request.model);
  fields.read("tokens", request.tokens);
  const bool given = fields.find("tokens") != nullptr;
  OLLAMA_ASSIGN(request, std::move(fields).finish(std::move(request)));
  if (!given) return fail(ErrorCode::kInvalidArgument, "tokens are required");
  return request;
}

class Extra {
 public:
  Extra(Services& services, Inference& inference) : services_(services), inference_(inference) {}

  // Documents by a cross-encoder's scores, or by how near their embeddings are to the query's.
  Task<> rerank(Exchange& x) {
    auto request = co_await parse_body(services_, x.request(), parse_rerank);
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    const auto granted = co_await load(x, request->model);
    if (!granted) co_return;
    std::optional<Scores> scores;
    if (granted->info().ranks) {
      scores = co_await score(x, *granted, *request);
    } else {
      scores = co_await compare(x, *granted, *request);
    }
    if (!scores) co_return;
    scores->values.resize(request->documents.size(), std::nan(""));
    if (!std::ranges::all_of(scores->values, [](double value) { return std::isfinite(value); })) {
      co_await x.respond_error(500, "a score is NaN or Inf");
      co_return;
    }
    co_await x.respond_json(200, ranked(*request, *scores));
  }

  Task<> tokenize(Exchange& x) {
    auto request = co_await parse_body(services_, x.request(), parse_tokenize);
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    const auto granted = co_await load(x, request->model);
    if (!granted) co_return;
    const auto tokens = co_await inference_.tokenize(x, *granted,
                                                     {.id = 0,
                                                      .text = std::move(request->content),
                                                      .add_special = request->add_special,
                                                      .parse_special = request->parse_special});
    if (!tokens) co_return;
    co_await x.respond_json(200, {{"tokens", array(tokens->begin(), tokens->end())},
                                  {"count", tokens->size()},
                                  {"max_model_len", granted->info().context}});
  }

  Task<> detokenize(Exchange& x) {
    auto request = co_await parse_body(services_, x.request(), parse_detokenize);
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    const auto granted = co_await load(x, request->model);
    if (!granted) co_return;
    const std::size_t vocabulary = granted->info().vocab_size;
    for (const std::int32_t token : request->tokens) {
      if (token < 0 || static_cast<std::size_t>(token) >= vocabulary) {
        co_await x.respond_error(
            400, std::format("token {} is outside the vocabulary of {}", token, vocabulary));
        co_return;
      }
    }
    const auto text = co_await inference_.detokenize(x, *granted, std::move(request->tokens));
    if (text) co_await x.respond_json(200, {{"content", *text}, {"prompt", *text}});
  }

 private:
  Task<std::optional<sched::Lease>> load(Exchange& x, const std::string& name) {
    const auto model = co_await inference_.find_model(x, name);
    if (!model) co_return std::nullopt;
    co_return co_await inference_.lease(x, *model, model->options, std::nullopt);
  }

  // Of each document.
  struct Scores {
    std::vector<double> values;
    bool logits = false;
    std::uint64_t tokens = 0;  // of all that was evaluated
  };

  Task<std::optional<Scores>> score(Exchange& x, const sched::Lease& lease,
                                    const RerankRequest& request) {
    const auto ranked = co_await inference_.rank(
        x, lease, {.id = 0, .query = request.query, .documents = request.documents});
    if (!ranked) co_return std::nullopt;
    Scores scores{.values = {ranked->values.begin(), ranked->values.end()},
                  .logits = true,
                  .tokens = ranked->tokens};
    co_return scores;
  }

  Task<std::optional<Scores>> compare(Exchange& x, const sched::Lease& lease,
                                      const RerankRequest& request) {
    std::vector<runner::Embed> inputs{
        {.id = 0, .text = request.query, .tokens = {}, .truncate = true}};
    for (const std::string& text : request.documents) {
      inputs.push_back({.id = 0, .text = text, .tokens = {}, .truncate = true});
    }
    auto embedded = co_await inference_.embed(x, lease, std::move(inputs));
    if (!embedded) co_return std::nullopt;
    Scores scores;
    for (runner::Embedded& one : *embedded) {
      engine::normalize(one.values);
      scores.tokens += one.tokens;
    }
    const std::vector<float>& query = embedded->front().values;
    for (std::size_t i = 1; i < embedded->size(); ++i) {
      scores.values.push_back(
          std::inner_product(query.begin(), query.end(), (*embedded)[i].values.begin(), 0.0));
    }
    co_return scores;
  }

  static api::JsonObject ranked(const RerankRequest& request, const Scores& scores) {
    // Jina's and Cohere's scores are between 0 and 1, which clients' thresholds rely on.
    const auto shown = [&](double value) {
      return scores.logits && !request.raw_scores ? 1 / (1 + std::exp(-value)) : value;
    };
    std::vector<std::size_t> order(scores.values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, std::ranges::greater{},
                             [&](std::size_t i) { return scores.values[i]; });
    if (request.top_n > 0 && request.top_n < order.size()) order.resize(request.top_n);
    array results;
    for (const std::size_t i : order) {
      api::JsonObject result{{"index", i}, {"relevance_score", shown(scores.values[i])}};
      if (request.return_documents) {
        result["document"] = api::JsonObject{{"text", request.documents[i]}};
      }
      results.emplace_back(std::move(result));
    }
    return {{"model", request.model},
            {"object", "list"},
            {"usage",
             api::JsonObject{{"prompt_tokens", scores.tokens}, {"total_tokens", scores.tokens}}},
            {"results", std::move(results)}};
  }

  Services& services_;
  Inference& inference_;
};

}  // namespace

std::vector<Route> extra_routes(Services& services, Inference& inference) {
  const auto self = std::make_shared<Extra>(services, inference);
  const auto route = [&](std::string pattern, Task<> (Extra::*handler)(Exchange&)) {
    return Route{.method = "POST",
                 .pattern = std::move(pattern),
                 .handler = [self, handler](Exchange& x) { return (*self.*handler)(x); }};
  };
  return {route("/v1/rerank", &Extra::rerank), route("/tokenize", &Extra::tokenize),
          route("/detokenize", &Extra::detokenize)};
}

}  // namespace ollama::server

// Models' answers, for the routes of every API family: from a request to what its client is told,
// in the family's own format.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/chat_format.h"
#include "api/openai.h"
#include "server/services.h"

namespace ollama::server {

// Bytes of a body that are read on another thread: the loop has other clients.
inline constexpr std::size_t kLongBody = 256U << 10;

// Reads a request's body as the type that `parse` makes.
template <typename T>
struct BodyReader {
  const Request* request;
  Result<T> (*parse)(const api::Json&);

  Result<T> operator()() const {
    if (request->body.find_first_not_of(" \t\r\n") == std::string::npos) {
      return fail(ErrorCode::kInvalidArgument, "missing request body");
    }
    OLLAMA_ASSIGN(const api::Json json, api::parse_json(request->body));
    return parse(json);
  }
};
template <typename T>
Task<Result<T>> parse_body(Services& services, const Request& request,
                           Result<T> (*parse)(const api::Json&)) {
  const BodyReader<T> reader{&request, parse};
  if (request.body.size() < kLongBody) co_return reader();
  co_return co_await services.reading.run(reader);
}

// Texts of one request that are evaluated each by itself, as long as the context: documents to be
// ranked, inputs to be embedded.
inline constexpr std::size_t kMostTexts = 10'000;

std::string json_quoted(std::string_view text);

// What to say where something of the model that is named `name` is not there: all of it is told as
// `not_found`, else what is missing.
std::string_view missing_text(const Error& error, std::string_view name,
                              std::string_view not_found);

class Inference {
 public:
  explicit Inference(Services& services) : services_(services) {}

  // Each of these answers the request, whatever comes.
  Task<> chat(Exchange& x, api::ForeignChat chat);
  Task<> generate(Exchange& x, api::GenerateRequest request);
  Task<> complete(Exchange& x, api::openai::Completion completion);

  // ---- Steps, for other routes. Without a value the request has been answered, or nobody waits.

  // Adds to a listed model what its weights tell, where they can be read.
  Task<> describe(api::ListModel& listed);
  // The model that a request names; without a name it is told `when_missing`.
  Task<std::optional<store::Model>> find_model(Exchange& x, const std::string& name,
                                               api::StatusError when_missing,
                                               std::string_view not_found);
  // The same with the errors of the APIs that are not Ollama's own.
  Task<std::optional<store::Model>> find_model(Exchange& x, const std::string& name);
  Task<std::optional<sched::Lease>> lease(Exchange& x, const store::Model& model,
                                          const api::Options& options,
                                          std::optional<api::Duration> keep_alive);
  // The inputs' embeddings, cut to the request's dimensions and normalised.
  Task<std::optional<api::EmbedResponse>> embeddings(Exchange& x, const store::Model& model,
                                                     const api::EmbedRequest& request,
                                                     std::vector<runner::Embed> inputs);
  // All inputs at once: the engine puts them into common batches.
  Task<std::optional<std::vector<runner::Embedded>>> embed(Exchange& x, const sched::Lease& lease,
                                                           std::vector<runner::Embed> inputs);
  // The documents' scores, of a model that ranks.
  Task<std::optional<runner::Embedded>> rank(Exchange& x, const sched::Lease& lease,
                                             runner::Rank request);
  // How many tokens a conversation's prompt has, its images among them.
  Task<std::optional<std::size_t>> count_tokens(Exchange& x, const api::ChatRequest& request);
  Task<std::optional<std::vector<runner::Token>>> tokenize(Exchange& x, const sched::Lease& lease,
                                                           runner::Tokenize request);
  Task<std::optional<std::string>> detokenize(Exchange& x, const sched::Lease& lease,
                                              std::vector<runner::Token> tokens);

 private:
  using Clock = std::chrono::steady_clock;

  struct Times {
    Clock::time_point start;
    Clock::time_point loaded;
  };
  // What is known of a model, with the request's template. Errors: those of reading it.
  Task<Result<store::Facts>> facts(const store::Model& model, const api::InferenceRequest& request);
  // What keeps the model from doing what the request asks; thinks where the request leaves that to
  // the model.
  Task<std::optional<api::StatusError>> check(const store::Model& model,
                                              api::InferenceRequest& request, bool tools,
                                              bool insert, bool raw = false);
  Task<std::optional<sched::Lease>> lease_for(Exchange& x, const api::InferenceRequest& request,
                                              const store::Model& model,
                                              const api::Options& options,
                                              std::string_view purpose);
  Task<std::optional<runner::Text>> render(Exchange& x, const sched::Lease& lease,
                                           runner::Generate generate);
  Task<std::optional<api::DebugInfo>> rendered(Exchange& x, const sched::Lease& lease,
                                               runner::Generate generate);

  // One of several ways to tell an answer.
  struct Telling {
    std::string model;  // its own name: a request may write it in many ways
    std::string_view stream_type;
    bool parallel_tools = true;
    // Of a streamed answer whose prompt is about to be evaluated; may be missing.
    std::function<std::string(const runner::Begun&)> begin = {};
    std::function<std::string(runner::Piece&&)> piece;
    // Of the whole answer, or of what follows the pieces.
    std::function<std::string(runner::Done&, runner::Piece&& collected)> last;
    std::function<std::string(const api::StatusError&)> broken;
  };
  // Streams an answer, or collects it into one call of `last`. False when the exchange is over:
  // nobody listens any more, or an error was told.
  Task<bool> tell(Exchange& x, const sched::Lease& lease, runner::Generate generate, bool stream,
                  const Telling& telling);
  Task<bool> tell_choices(Exchange& x, const sched::Lease& lease, const std::string& model,
                          const runner::Generate& generate, const api::ForeignChat& chat,
                          Times times);

  Services& services_;
  // By the model's digest and that of a request's own template, which may be large: reading a
  // model's metadata takes its time.
  std::map<std::string, store::Facts> facts_;
};

}  // namespace ollama::server

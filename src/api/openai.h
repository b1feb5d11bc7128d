// OpenAI's API, as its clients speak it: chat completions, completions, embeddings, models and
// responses.
#pragma once

#include "api/chat_format.h"

namespace ollama::api::openai {

// {"error": {"message", "type", "param", "code"}}
JsonObject error_json(const StatusError& error);

// POST /v1/chat/completions. Errors: kInvalidArgument names the field.
Result<ForeignChat> parse_chat(const Json& json);
// POST /v1/responses. Nothing is stored: previous_response_id and background are refused.
Result<ForeignChat> parse_responses(const Json& json);

// POST /v1/completions: each prompt is answered `choices` times.
struct Completion {
  GenerateRequest request;           // but for its prompt
  std::vector<std::string> prompts;  // one of texts and token lists has entries
  std::vector<std::vector<std::int32_t>> token_prompts;
  std::size_t choices = 1;
  std::size_t best_of = 1;  // at least `choices`: the answers that the likeliest are taken from
  bool echo = false;        // the prompt stands before the answer
  bool include_usage = false;
};
Result<Completion> parse_completion(const Json& json);

// Tells answers of a Completion, numbered by prompt and choice.
class CompletionFormat {
 public:
  // `choices`: answers to each prompt, whose tokens count once.
  CompletionFormat(std::string model, bool include_usage, std::size_t choices);
  // Before the answer of that number: `echo` stands before it.
  void begin(std::size_t index, std::string_view echo);
  std::string piece(const GenerateResponse& response, std::size_t index);
  std::string end();
  JsonObject whole(const std::vector<GenerateResponse>& responses);

 private:
  JsonObject frame() const;
  Json logprobs(const std::vector<Logprob>& logprobs, std::size_t index);
  std::string id_;
  std::string model_;
  void add_usage(const Metrics& metrics, std::size_t index);
  bool include_usage_;
  std::size_t choices_;
  std::int64_t created_;
  Metrics usage_;
  std::vector<std::int64_t> offsets_;  // of each answer: characters before its next token
};

// POST /v1/embeddings.
struct Embeddings {
  EmbedRequest request;
  std::vector<std::vector<std::int32_t>> tokens;  // instead of texts
  bool base64 = false;                            // little-endian floats
};
Result<Embeddings> parse_embeddings(const Json& json);
JsonObject embeddings_json(const EmbedResponse& response, bool base64);

JsonObject models_json(const ListResponse& models);
JsonObject model_json(std::string_view name, Time created, std::string_view owner);

}  // namespace ollama::api::openai

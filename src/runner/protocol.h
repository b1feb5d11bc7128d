// What the server and a runner say to each other: structs, and their JSON. Each message is one
// frame (see frame.h) on a socket pair. Numbers and enums travel as numbers; both sides are one
// executable.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "engine/engine.h"

namespace ollama::runner {

using Id = std::uint64_t;  // of one request; chosen by the server, unique in one runner's life
using tokenizer::Token;

// ---- To the runner

// Comes first, and once.
struct Load {
  std::string path;
  engine::LoadOptions options;
};

struct Generate {
  Id id = 0;
  // The prompt as text that needs no template, or the messages that `template_text` renders.
  std::string prompt;
  std::vector<api::Message> messages;
  std::string template_text;
  std::string renderer;             // built-in ones that the model names, or empty: see
  std::string parser;               // chat/builtin.h
  api::Json tools;                  // null, or an array as in the API
  std::optional<api::Think> think;  // unset where the request says nothing
  bool plain_calls = false;    // `format` makes the answer a call in JSON, whatever the model's way
  bool take_apart = false;     // tell thinking and calls of tools apart from text
  std::string suffix;          // not empty: `prompt` stands before a gap and this after it
  bool raw = false;            // `prompt` as it is, not `messages`
  std::vector<Token> tokens;   // the prompt, instead of all that; nothing is added to them
  std::vector<Token> context;  // an earlier answer's; stands before the prompt
  bool want_context = false;   // Done tells the tokens of prompt and answer
  bool want_begun = false;     // Begun comes before the first Piece
  bool render_only = false;    // answered by Text with the prompt instead of an answer
  sample::Options sampling;
  bool text_logprobs = false;  // with take_apart: sampling.logprobs are of the text's tokens alone
  std::int32_t num_predict = -1;
  std::int32_t num_keep = 4;
  bool shift = true;
  bool truncate = true;
  bool ignore_end = false;
  std::vector<std::string> stop;
  std::string format;  // JSON: "json", a schema, a grammar's text (see grammar::compile_format)
};

struct Cancel {
  Id id = 0;
};

// Answered by Embedded. A text that is longer than the context is cut, or kInvalidArgument.
struct Embed {
  Id id = 0;
  std::string text;
  std::vector<Token> tokens;  // instead of a text, where there are some
  bool truncate = true;
};

// How well each document, of which there is one at least, answers a query. Answered by Embedded
// with their scores. A document that is too long for the context beside the query is cut.
struct Rank {
  Id id = 0;
  std::string query;
  std::vector<std::string> documents;
};

// Answered by Tokens.
struct Tokenize {
  Id id = 0;
  std::string text;
  bool add_special = false;
  bool parse_special = false;
};

// Answered by Text.
struct Detokenize {
  Id id = 0;
  std::vector<Token> tokens;
};

struct Shutdown {};

// Instead of Load, for what a server should not do in its own process. Answered by Explained with
// where that Load would put the model, or LoadFailed.
struct Explain {
  Load load;
};
// As well; answered by Devices.
struct ListDevices {
  ml::DeviceOptions options;
};

using ToRunner = std::variant<Load, Generate, Cancel, Embed, Tokenize, Detokenize, Shutdown,
                              Explain, ListDevices, Rank>;

// ---- From the runner

struct Progress {
  float fraction = 0;  // 0 to 1
};
struct Ready {
  engine::ModelInfo info;
};
struct LoadFailed {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

// The prompt of a Generate is known, and about to be evaluated.
struct Begun {
  Id id = 0;
  std::uint32_t prompt_tokens = 0;  // cached ones included
  std::uint32_t cached_tokens = 0;
};
struct Piece {
  Id id = 0;
  std::string text;  // whole UTF-8 characters
  // With take_apart.
  std::string thinking;
  std::vector<api::ToolCall> calls;
  std::uint32_t tokens = 0;  // generated since the last piece
  // With sampling.logprobs, of the tokens that this piece tells.
  std::vector<api::Logprob> logprobs;
};
// The end of a Generate that went well or was cancelled.
struct Done {
  Id id = 0;
  engine::DoneReason reason = engine::DoneReason::kStop;
  engine::Stats stats;
  std::vector<Token> context;         // with want_context
  std::uint32_t thinking_tokens = 0;  // with take_apart: of the generated ones, marks included
};
// What an answer cost; the durations of the whole and of loading are the caller's.
api::Metrics metrics_of(const Done& done);

// The end of any request that did not go well.
struct Failed {
  Id id = 0;
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};
struct Embedded {
  Id id = 0;
  std::vector<float> values;  // not normalised
  std::uint32_t tokens = 0;
};
struct Tokens {
  Id id = 0;
  std::vector<Token> tokens;
};
struct Text {
  Id id = 0;
  std::string text;
  std::uint32_t images = 0;  // of the messages in a prompt
};

struct Explained {
  api::MemoryPlan plan;
};
struct Devices {
  std::vector<ml::Device> devices;
};

using FromRunner = std::variant<Progress, Ready, LoadFailed, Piece, Done, Failed, Embedded, Tokens,
                                Text, Explained, Devices, Begun>;

// ---- To and from a process that converts (see conversion.h)

struct ConvertFile {
  std::string name;
  std::string path;
};

// Comes first, and once. Either a checkpoint's files, or a model and the mix it is to get.
struct Convert {
  std::vector<ConvertFile> checkpoint;
  std::string model;
  std::string mix;
  std::string output;
};

// Bytes of weights.
struct Converting {
  std::uint64_t done = 0;
  std::uint64_t total = 0;
};
struct Converted {};
struct ConvertFailed {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

using ToConverter = std::variant<Convert>;
using FromConverter = std::variant<Converting, Converted, ConvertFailed>;

// A frame, ready to be written.
std::string encode(const ToRunner& message);
std::string encode(const FromRunner& message);
std::string encode(const ToConverter& message);
std::string encode(const FromConverter& message);
// A frame's payload. Errors: kCorrupt names the message and field.
Result<ToRunner> decode_to_runner(std::string_view payload);
Result<FromRunner> decode_from_runner(std::string_view payload);
Result<ToConverter> decode_to_converter(std::string_view payload);
Result<FromConverter> decode_from_converter(std::string_view payload);

}  // namespace ollama::runner

// Jinja templates, as model files carry them (`tokenizer.chat_template`), rendered as Jinja2 does
// in the way of Hugging Face's libraries: ImmutableSandboxedEnvironment with trim_blocks,
// lstrip_blocks and loop controls, no escaping, `tojson` as Python's json.dumps without escapes
// beyond JSON's, and the functions raise_exception and strftime_now.
//
// Differences: integers have 64 bits, beyond which there is an error; what map, select and the like
// give is computed at once; include, import and extends are refused, since templates stand alone.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api/types.h"
#include "base/error.h"

namespace ollama::chat {

// What a rendering may use. Templates are untrusted: each limit ends it with an error.
struct JinjaLimits {
  std::uint64_t steps = 10'000'000;          // expressions and statements, roughly
  std::size_t memory = 256UL * 1024 * 1024;  // of values, in bytes
  std::size_t output = 64UL * 1024 * 1024;   // bytes
  std::uint32_t depth = 500;                 // of nested statements, expressions and calls
  std::chrono::milliseconds time{5000};
};

struct JinjaOptions {
  std::optional<std::chrono::local_seconds> now =
      {};  // what strftime_now formats; unset: the clock's
  JinjaLimits limits = {};
};

namespace jinja {
struct Program;
}

// A parsed template; may be rendered by several threads at once.
class JinjaTemplate {
 public:
  static constexpr std::size_t kMaxBytes = 1024UL * 1024;

  // kInvalidArgument names line and column. Arbitrary bytes are accepted.
  static Result<JinjaTemplate> parse(std::string_view text);

  // `context` are the template's variables. Errors begin with "line L, column C: ":
  // kInvalidArgument (also what the template raises itself), kTimeout, kOutOfMemory.
  Result<std::string> render(const api::JsonObject& context,
                             const JinjaOptions& options = {}) const;

  // Whether the template mentions a variable, attribute or (short) string of that name anywhere,
  // such as "tools" or "enable_thinking".
  bool mentions(std::string_view name) const;

 private:
  explicit JinjaTemplate(std::shared_ptr<const jinja::Program> program)
      : program_(std::move(program)) {}

  std::shared_ptr<const jinja::Program> program_;
};

}  // namespace ollama::chat

// What a Go template can call: text/template's own functions and those that Ollama adds.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "chat/go/value.h"

namespace ollama::chat::go {

enum class Function : std::uint8_t {
  kAnd,  // these two do not evaluate what they do not need: see the evaluator
  kOr,
  kCall,
  kHtml,
  kIndex,
  kJs,
  kLen,
  kNot,
  kPrint,
  kPrintf,
  kPrintln,
  kSlice,
  kUrlQuery,
  kEq,
  kGe,
  kGt,
  kLe,
  kLt,
  kNe,
  kJson,
  kCurrentDate,
  kYesterdayDate,
  kTypeScriptType,
};

std::optional<Function> find_function(std::string_view name);
std::string_view function_name(Function function);
// How many arguments it takes: from `least` to `most`.
struct Arity {
  std::size_t least = 0;
  std::size_t most = 0;
};
Arity arity_of(Function function);

// What functions need of the rendering.
class Host {
 public:
  virtual ~Host() = default;
  virtual std::chrono::local_seconds now() const = 0;
  // Bytes that one call may produce.
  virtual std::size_t room() const = 0;
  // Keeps a text as long as the rendering lasts; counts against its limit.
  virtual Result<std::string_view> keep(std::string text) = 0;
};

// Calls it; the number of arguments is right. Errors: kInvalidArgument, without a position.
Result<Value> call(Function function, std::span<const Value> arguments, Host& host);

}  // namespace ollama::chat::go

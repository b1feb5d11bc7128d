// What templates find without defining it: filters, tests, methods of strings, dicts and lists, and
// functions.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "chat/jinja/ast.h"
#include "chat/jinja/format.h"
#include "chat/jinja/value.h"

namespace ollama::chat::jinja {

// The arguments of a call.
struct Call {
  std::span<const Value> positional = {};
  std::span<const Argument> named = {};
};

// The arguments as parameters of these names; kMissing where one is not given. Fails for others,
// and where one of the first `required` is not given.
void bind_arguments(const Call& call, std::span<const std::string_view> names, std::size_t required,
                    std::span<Value> values);
template <std::size_t N>
std::array<Value, N> parameters(const Call& call, const std::string_view (&names)[N],
                                std::size_t required = 0) {
  std::array<Value, N> values;
  bind_arguments(call, names, required, values);
  return values;
}
void expect_no_arguments(const Call& call);

// Arguments of a kind, or failures that name what they are.
std::int64_t integer_argument(const Value& value, std::string_view name, std::int64_t otherwise);
std::string_view text_argument(const Value& value, std::string_view name);

// nullptr where there is none of that name.
FilterFunction find_filter(std::string_view name);
TestFunction find_test(std::string_view name);

enum class MethodId : std::uint8_t {
  kNone,
  // of strings
  kCapitalize,
  kCasefold,
  kCenter,
  kCount,  // also of lists
  kEndswith,
  kExpandtabs,
  kFind,
  kFormat,
  kFormatMap,
  kIndex,  // also of lists, and an attribute of loops
  kIsalnum,
  kIsalpha,
  kIsascii,
  kIsdecimal,
  kIsdigit,
  kIsidentifier,
  kIslower,
  kIsnumeric,
  kIsprintable,
  kIsspace,
  kIstitle,
  kIsupper,
  kJoin,
  kLjust,
  kLower,
  kLstrip,
  kPartition,
  kRemoveprefix,
  kRemovesuffix,
  kReplace,
  kRfind,
  kRindex,
  kRjust,
  kRpartition,
  kRsplit,
  kRstrip,
  kSplit,
  kSplitlines,
  kStartswith,
  kStrip,
  kSwapcase,
  kTitle,
  kUpper,
  kZfill,
  // of dicts
  kGet,
  kItems,
  kKeys,
  kValues,
  kCopy,  // also of lists
  // which would change their object
  kAppend,
  kClear,
  kExtend,
  kInsert,
  kPop,
  kPopitem,
  kRemove,
  kReverse,
  kSetdefault,
  kSort,
  kUpdate,
  // of loops and cyclers
  kCycle,
  kChanged,
  kNext,
  kReset
};
MethodId find_method(std::string_view name);
// Whether values of that kind have it, and whether the sandbox refuses it to them.
bool has_method(Kind kind, MethodId method);
bool is_refused(Kind kind, MethodId method);
Value call_method(Interpreter& in, const Value& object, MethodId method, const Call& call);
Value call_string_method(Interpreter& in, const Value& object, MethodId method, const Call& call);

enum class GlobalId : std::uint8_t {
  kRange,
  kNamespace,
  kDict,
  kCycler,
  kJoiner,
  kRaiseException,
  kStrftimeNow
};
// kMissing where there is none of that name.
Value find_global(std::string_view name);
Value call_global(Interpreter& in, GlobalId id, const Call& call);

// C's strftime in the C locale; what it does not know is kept.
std::string format_date(std::string_view format, std::chrono::local_seconds time);

// Shared by filters and methods.
Value replace_text(Runtime& run, std::string_view text, std::string_view from, std::string_view to,
                   std::int64_t count);
// Python's str.splitlines().
std::vector<Value> split_lines(Runtime& run, std::string_view text, bool keep_ends);

}  // namespace ollama::chat::jinja

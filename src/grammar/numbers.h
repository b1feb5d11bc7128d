// Numbers within bounds, as grammars of their decimal digits. Internal to grammar.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "api/types.h"
#include "base/error.h"
#include "grammar/builder.h"

namespace ollama::grammar {

// A bound, exactly: its sign, and its digits before and after the point, without needless zeros.
struct Decimal {
  bool negative = false;
  std::string whole = "0";
  std::string fraction;

  // Numbers of so many digits are different doubles where they are different, in the same order.
  static constexpr std::size_t kMostDigits = 15;

  // Errors: kInvalidArgument (more digits, some of them after the point).
  static Result<Decimal> parse(const api::Json& number);
  // Beyond every number that is written.
  bool huge() const { return whole.size() > kMostDigits; }
  bool zero() const { return whole == "0" && fraction.empty(); }
  Decimal negated() const { return {zero() ? false : !negative, whole, fraction}; }
};
// Negative, 0, positive: as a is below, equal to or above b.
int compare(const Decimal& a, const Decimal& b);

struct Bound {
  Decimal value;
  bool exclusive = false;
};

struct NumberRange {
  std::optional<Bound> low;
  std::optional<Bound> high;
  bool integer = false;
};

// Every number of the range that has at most Decimal::kMostDigits digits, without exponent; never()
// where there is none. The bounds are not huge().
Expression bounded_number(const NumberRange& range, Builder& builder);

}  // namespace ollama::grammar

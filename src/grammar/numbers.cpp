#include "grammar/numbers.h"

#include <algorithm>
#include <charconv>

namespace ollama::grammar {
namespace {

constexpr std::size_t kMostDigits = Decimal::kMostDigits;

// Writes the numbers from 0 on, digit by digit, beside the digits of the two bounds while those
// are the same so far. `B` builds expressions or terms, which are `Expression` here.
template <typename B, typename Expression>
class DigitWriter {
 public:
  DigitWriter(B& builder, const Bound& low, const std::optional<Bound>& high,
              const NumberRange& range)
      : b_(builder), low_(low), high_(high), integer_(range.integer), most_(range.most_digits) {}

  Expression write() {
    std::vector<Expression> options;
    const std::size_t shortest = low_.value.whole.size();
    const std::size_t end = high_ ? high_->value.whole.size() : most_ + 1;
    if (high_ && end <= most_) options.push_back(digits_of_length(end, end == shortest, true));
    if (shortest < end && shortest <= most_) {
      options.push_back(digits_of_length(shortest, true, false));
    }
    // Of other lengths all are between the bounds.
    std::size_t length = shortest + 1;
    for (; !integer_ && length < std::min(end, kMostDigits); ++length) {
      options.push_back(digits_of_length(length, false, false));
    }
    const std::size_t longest = std::min(end - 1, most_);
    if (length <= longest) {
      options.push_back(b_.sequence(
          {digits('1', '9'), b_.repeat(digits('0', '9'), static_cast<std::uint32_t>(length - 1),
                                       static_cast<std::uint32_t>(longest - 1))}));
    }
    return b_.choice(options);
  }

 private:
  Expression digits_of_length(std::size_t length, bool at_low, bool at_high) {
    length_ = length;
    return whole_digits(0, at_low, at_high);
  }
  Expression digits(char first, char last) {
    if (first > last) return b_.never();
    return b_.characters({{static_cast<char32_t>(first), static_cast<char32_t>(last)}});
  }
  static char digit_of(const std::string& digits, std::size_t at) {
    return at < digits.size() ? digits[at] : '0';
  }

  // The rest after one digit, which lies between those of the bounds where they count; `next`
  // writes the rest with the bounds that still do.
  template <typename Next>
  Expression digit(char first, bool at_low, char low, bool at_high, char high, Next next) {
    first = at_low ? std::max(first, low) : first;
    const char last = at_high ? high : '9';
    std::vector<Expression> options;
    char from = first;
    char to = last;
    if (at_low && from == low && from <= to) {
      options.push_back(b_.sequence({digits(from, from), next(true, at_high && from == high)}));
      ++from;
    }
    if (at_high && from <= to) {
      options.push_back(b_.sequence({digits(to, to), next(false, true)}));
      --to;
    }
    if (from <= to) options.push_back(b_.sequence({digits(from, to), next(false, false)}));
    return b_.choice(options);
  }

  // NOLINTNEXTLINE(misc-no-recursion): as deep as the bounds are long
  Expression whole_digits(std::size_t at, bool at_low, bool at_high) {
    if (at == length_) return end(at_low, at_high);
    if (!at_low && !at_high && at > 0) {
      const auto left = static_cast<std::uint32_t>(length_ - at);
      return b_.sequence({b_.repeat(digits('0', '9'), left, left), end(false, false)});
    }
    const char first = at == 0 && length_ > 1 ? '1' : '0';
    return digit(first, at_low, digit_of(low_.value.whole, at), at_high,
                 high_ ? digit_of(high_->value.whole, at) : '9',
                 [&](bool low, bool high) { return whole_digits(at + 1, low, high); });
  }

  bool meets_low(std::size_t digits) const {
    if (low_.value.fraction.size() > digits) return false;  // its last digit is not 0
    return !low_.exclusive;
  }
  bool meets_high(std::size_t digits) const {
    return high_->value.fraction.size() > digits || !high_->exclusive;
  }

  // After the whole part: nothing more, or a fraction.
  Expression end(bool at_low, bool at_high) {
    std::vector<Expression> options;
    if ((!at_low || meets_low(0)) && (!at_high || meets_high(0))) options.push_back(b_.empty());
    if (!integer_ && length_ < kMostDigits) {
      options.push_back(b_.sequence({b_.literal("."), fraction(0, at_low, at_high)}));
    }
    return b_.choice(options);
  }

  // At least one digit more.
  // NOLINTNEXTLINE(misc-no-recursion): bounded by kMostDigits
  Expression fraction(std::size_t at, bool at_low, bool at_high) {
    const std::size_t most = kMostDigits - std::min(length_, kMostDigits);
    if (at == most) return b_.never();
    // Past the digits of the lower bound nothing is below it.
    if (at_low && at >= low_.value.fraction.size() && !low_.exclusive) at_low = false;
    if (!at_low && !at_high) {
      return b_.repeat(digits('0', '9'), 1, static_cast<std::uint32_t>(most - at));
    }
    return digit('0', at_low, digit_of(low_.value.fraction, at), at_high,
                 high_ ? digit_of(high_->value.fraction, at) : '9', [&](bool low, bool high) {
                   const bool whole = (!low || meets_low(at + 1)) && (!high || meets_high(at + 1));
                   const Expression more = fraction(at + 1, low, high);
                   return whole ? b_.choice({b_.empty(), more}) : more;
                 });
  }

  B& b_;
  const Bound& low_;
  const std::optional<Bound>& high_;
  bool integer_;
  std::size_t most_;
  std::size_t length_ = 0;  // digits of the whole part
};

}  // namespace

Result<Decimal> Decimal::parse(const api::Json& number) {
  std::string text = api::to_string(number);
  Decimal decimal;
  decimal.negative = text.starts_with('-');
  if (decimal.negative) text.erase(0, 1);
  int exponent = 0;
  if (const std::size_t e = text.find_first_of("eE"); e != std::string::npos) {
    const std::size_t digits = e + (text[e + 1] == '+' ? 2 : 1);
    std::from_chars(text.data() + digits, text.data() + text.size(), exponent);  // up to 308
    text.erase(e);
  }
  const std::size_t point = std::min(text.find('.'), text.size());
  std::string digits = text.substr(0, point) + (point < text.size() ? text.substr(point + 1) : "");
  int place = static_cast<int>(point) + exponent;  // digits before the point
  while (place < 0 || digits.empty()) {
    digits.insert(digits.begin(), '0');
    ++place;
  }
  while (static_cast<int>(digits.size()) < place) digits.push_back('0');
  decimal.whole = digits.substr(0, static_cast<std::size_t>(place));
  decimal.fraction = digits.substr(static_cast<std::size_t>(place));
  decimal.whole.erase(0, decimal.whole.find_first_not_of('0'));
  if (decimal.whole.empty()) decimal.whole = "0";
  decimal.fraction.erase(decimal.fraction.find_last_not_of('0') + 1);
  if (decimal.zero()) decimal.negative = false;
  if (decimal.huge()) decimal.fraction.clear();
  const std::size_t whole_digits = decimal.whole == "0" ? 0 : decimal.whole.size();
  if (!decimal.fraction.empty() && whole_digits + decimal.fraction.size() > kMostDigits) {
    return fail(ErrorCode::kInvalidArgument, "{} has more than {} digits", api::to_string(number),
                kMostDigits);
  }
  return decimal;
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  const auto magnitude = [](const Decimal& x, const Decimal& y) {
    if (x.whole.size() != y.whole.size()) return x.whole.size() < y.whole.size() ? -1 : 1;
    const int whole = x.whole.compare(y.whole);
    return whole != 0 ? whole : x.fraction.compare(y.fraction);
  };
  return a.negative ? magnitude(b, a) : magnitude(a, b);
}

Bound Bound::inclusive(bool low) const {
  constexpr std::size_t kSure = Decimal::kMostDigits;
  if (!exclusive || value.whole.size() <= kSure) return *this;
  std::uint64_t head = 0;
  std::from_chars(value.whole.data(), value.whole.data() + kSure, head);
  head = low != value.negative ? head + 1 : head - 1;
  Bound bound = *this;
  bound.value.whole = std::to_string(head) + std::string(value.whole.size() - kSure, '0');
  bound.exclusive = false;
  return bound;
}

namespace {

template <typename Expression, typename B>
Expression within(const NumberRange& range, B& builder) {
  const Bound zero;
  std::vector<Expression> options;
  // From 0 up.
  if (!range.high || !range.high->value.negative) {
    const Bound& low = range.low && !range.low->value.negative ? *range.low : zero;
    if (!range.high || compare(low.value, range.high->value) <= 0) {
      options.push_back(DigitWriter<B, Expression>(builder, low, range.high, range).write());
    }
  }
  // Below 0: a minus before the numbers of the mirrored range, without 0.
  if (!range.low || range.low->value.negative) {
    const auto mirrored = [](const Bound& bound) {
      return Bound{bound.value.negated(), bound.exclusive};
    };
    Bound low{.value = {}, .exclusive = true};
    if (range.high && range.high->value.negative) low = mirrored(*range.high);
    const std::optional<Bound> high =
        range.low ? std::optional(mirrored(*range.low)) : std::nullopt;
    if (!high || compare(low.value, high->value) <= 0) {
      options.push_back(builder.sequence(
          {builder.literal("-"), DigitWriter<B, Expression>(builder, low, high, range).write()}));
    }
  }
  return builder.choice(options);
}

}  // namespace

Expression bounded_number(const NumberRange& range, Builder& builder) {
  return within<Expression>(range, builder);
}

Term bounded_number(const NumberRange& range, Language& language) {
  return within<Term>(range, language);
}

}  // namespace ollama::grammar

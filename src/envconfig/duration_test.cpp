#include "envconfig/duration.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <limits>

namespace ollama::envconfig {
namespace {

using namespace std::chrono_literals;

TEST(Duration, ReadsGoDurations) {
  EXPECT_EQ(parse_duration("5m"), 5min);
  EXPECT_EQ(parse_duration("1h30m"), 90min);
  EXPECT_EQ(parse_duration("-1.5s"), -1500ms);
  EXPECT_EQ(parse_duration("+2us"), 2us);
  EXPECT_EQ(parse_duration("3\u00b5s"), 3us);
  EXPECT_EQ(parse_duration(".5h"), 30min);
  EXPECT_EQ(parse_duration("1.s"), 1s);
  EXPECT_EQ(parse_duration("0"), 0s);
  EXPECT_EQ(parse_duration("0.100000000000000000000h"), 6min);
  EXPECT_EQ(parse_duration("9223372036854775807ns"), Duration::max());
  EXPECT_EQ(parse_duration("-9223372036854775808ns"), Duration::min());
}

TEST(Duration, RefusesWhatGoRefuses) {
  for (const char* text :
       {"", "-", "5", "m", ".", ".s", "1x", "1h 30m", "5 m", "1.2.3s", "9223372036854775808ns",
        "99999999999999999999s", "1e3s", "--1s", "3000000h", "-3000000h", "5m5", "\xff"}) {
    EXPECT_FALSE(parse_duration(text)) << '"' << text << '"';
  }
}

TEST(Duration, PrintsAsGoDoes) {
  EXPECT_EQ(format_duration(0s), "0s");
  EXPECT_EQ(format_duration(5min), "5m0s");
  EXPECT_EQ(format_duration(90min), "1h30m0s");
  EXPECT_EQ(format_duration(1500ms), "1.5s");
  EXPECT_EQ(format_duration(-250ms), "-250ms");
  EXPECT_EQ(format_duration(1100ns), "1.1\u00b5s");
  EXPECT_EQ(format_duration(7ns), "7ns");
  EXPECT_EQ(format_duration(100h + 1ns), "100h0m0.000000001s");
  EXPECT_EQ(format_duration(kForever), "2562047h47m16.854775807s");
}

// What is printed reads back as the same duration, or keep_alive changes on its way to the server.
TEST(Duration, RoundTrips) {
  EXPECT_EQ(parse_duration(format_duration(Duration::min())), Duration::min());
  ASSERT_TRUE(rc::check([](std::int64_t count, unsigned shift) {
    const Duration duration(count >> (shift % 64));
    const auto parsed = parse_duration(format_duration(duration));
    RC_ASSERT(parsed.has_value());
    RC_ASSERT(parsed->count() == duration.count());
  }));
}

TEST(Duration, ArbitraryTextNeverBreaksTheParser) {
  ASSERT_TRUE(rc::check([](const std::string& text) {
    const auto parsed = parse_duration(text);
    RC_ASSERT(parsed.has_value() || parsed.error().code() == ErrorCode::kInvalidArgument);
  }));
}

TEST(KeepAlive, AcceptsSecondsAndNegatives) {
  EXPECT_EQ(parse_keep_alive("300"), 300s);
  EXPECT_EQ(parse_keep_alive("0"), 0s);
  EXPECT_EQ(parse_keep_alive("-1"), kForever);
  EXPECT_EQ(parse_keep_alive("-5m"), kForever);
  EXPECT_EQ(parse_keep_alive("24h"), 24h);
  EXPECT_EQ(parse_keep_alive("9223372036854775807"), kForever);
  EXPECT_FALSE(parse_keep_alive("soon"));
}

}  // namespace
}  // namespace ollama::envconfig

#include "envconfig/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <map>

namespace ollama::envconfig {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Config config_of(std::map<std::string, std::string> environment) {
  environment.try_emplace("HOME", "/home/someone");
  return Config::from_environment([&](const std::string& name) -> std::optional<std::string> {
    const auto found = environment.find(name);
    if (found == environment.end()) return std::nullopt;
    return found->second;
  });
}

std::string shown(const Config& config, std::string_view name) {
  for (const auto& [key, value] : config.values()) {
    if (key == name) return value;
  }
  return "(missing)";
}

TEST(Config, Defaults) {
  const Config config = config_of({});
  EXPECT_EQ(config.host.url(), "http://127.0.0.1:11434");
  EXPECT_EQ(config.models, "/home/someone/.ollama/models");
  EXPECT_EQ(config.keep_alive, 5min);
  EXPECT_EQ(config.context_length, 16384U);
  EXPECT_EQ(config.num_parallel, 1U);
  EXPECT_EQ(config.vram_min_free, 479199232U);
  EXPECT_EQ(config.kv_cache_type, "f16");
  EXPECT_EQ(config.flash_attention, std::nullopt);
  EXPECT_EQ(config.log_level, log::Level::kInfo);
  EXPECT_TRUE(config.go_template);
  EXPECT_THAT(config.warnings, IsEmpty());
  EXPECT_EQ(config.origins.size(), 17U);
  EXPECT_THAT(config.origins, Contains("http://localhost:*"));
  EXPECT_THAT(config.origins, Contains("https://0.0.0.0"));
  EXPECT_THAT(config.origins, Contains("vscode-file://*"));
}

// The text shown as a variable's default must mean the default that is used.
TEST(Config, TheTablesDefaultsAreTheRealOnes) {
  const Config plain = config_of({});
  for (const Variable& variable : variables()) {
    if (variable.fallback.empty() || variable.kind == Kind::kPath) continue;
    const Config set = config_of({{std::string(variable.name), std::string(variable.fallback)}});
    EXPECT_THAT(set.warnings, IsEmpty()) << variable.name;
    EXPECT_EQ(set.values(), plain.values()) << variable.name;
  }
}

TEST(Config, TheTableIsSortedAndDescribed) {
  EXPECT_TRUE(std::ranges::is_sorted(variables(), std::less_equal<>(), &Variable::name));
  for (const Variable& variable : variables()) {
    EXPECT_FALSE(variable.description.empty()) << variable.name;
    EXPECT_FALSE(variable.description.ends_with('.')) << variable.name;
    EXPECT_THAT(help_text(), HasSubstr(std::string(variable.name)));
    EXPECT_THAT(markdown_table(), HasSubstr("| `" + std::string(variable.name) + "` |"));
  }
  EXPECT_THAT(help_text(), HasSubstr("Enable flash attention (auto-enabled if supported when not "
                                     "set)"));
}

TEST(Config, StripsBlanksAndQuotes) {
  EXPECT_EQ(config_of({{"OLLAMA_NUM_PARALLEL", " \"4\" "}}).num_parallel, 4U);
  EXPECT_EQ(config_of({{"OLLAMA_MODELS", "'/srv/models'"}}).models, "/srv/models");
  EXPECT_EQ(config_of({{"OLLAMA_HOST", "\" 1.2.3.4 \""}}).host.address(), "1.2.3.4:11434");
  EXPECT_EQ(config_of({{"OLLAMA_MODELS", "\"\""}}).models, "/home/someone/.ollama/models");
}

TEST(Config, BadNumbersWarnAndKeepTheDefault) {
  for (const char* text : {"x", "-1", "1.5", "4294967296", "1 2", "0x10"}) {
    const Config config = config_of({{"OLLAMA_MAX_QUEUE", text}});
    EXPECT_EQ(config.max_queue, 512U) << text;
    ASSERT_EQ(config.warnings.size(), 1U) << text;
    EXPECT_THAT(config.warnings[0], HasSubstr("OLLAMA_MAX_QUEUE"));
    EXPECT_THAT(config.warnings[0], HasSubstr("512"));
  }
  const Config config = config_of({{"OLLAMA_KEEP_ALIVE", "soon"}});
  EXPECT_EQ(config.keep_alive, 5min);
  EXPECT_EQ(config.warnings.size(), 1U);
}

TEST(Config, ZeroMeansTheDefaultWhereNothingWouldWork) {
  EXPECT_EQ(config_of({{"OLLAMA_NUM_PARALLEL", "0"}}).num_parallel, 1U);
  EXPECT_EQ(config_of({{"OLLAMA_CONTEXT_LENGTH", "0"}}).context_length, 16384U);
}

TEST(Config, UnreadableBooleansAreTrue) {
  EXPECT_TRUE(config_of({{"OLLAMA_NOHISTORY", "yes please"}}).no_history);
  EXPECT_FALSE(config_of({{"OLLAMA_NOHISTORY", "false"}}).no_history);
  EXPECT_FALSE(config_of({{"OLLAMA_NOHISTORY", "F"}}).no_history);
  EXPECT_FALSE(config_of({{"OLLAMA_NOHISTORY", ""}}).no_history);
  EXPECT_FALSE(config_of({{"OLLAMA_GO_TEMPLATE", "0"}}).go_template);
  EXPECT_EQ(config_of({{"OLLAMA_FLASH_ATTENTION", "0"}}).flash_attention, false);
  EXPECT_EQ(config_of({{"OLLAMA_FLASH_ATTENTION", "on"}}).flash_attention, true);
}

TEST(Config, DebugLevels) {
  EXPECT_EQ(config_of({{"OLLAMA_DEBUG", "1"}}).log_level, log::Level::kDebug);
  EXPECT_EQ(config_of({{"OLLAMA_DEBUG", "true"}}).log_level, log::Level::kDebug);
  EXPECT_EQ(config_of({{"OLLAMA_DEBUG", "2"}}).log_level, log::Level::kTrace);
  EXPECT_EQ(config_of({{"OLLAMA_DEBUG", "0"}}).log_level, log::Level::kInfo);
  EXPECT_EQ(config_of({{"OLLAMA_DEBUG", "-1"}}).log_level, log::Level::kWarn);
  EXPECT_EQ(config_of({{"OLLAMA_DEBUG", "verbose"}}).log_level, log::Level::kDebug);
}

TEST(Config, Durations) {
  EXPECT_EQ(config_of({{"OLLAMA_KEEP_ALIVE", "1h30m"}}).keep_alive, 90min);
  EXPECT_EQ(config_of({{"OLLAMA_KEEP_ALIVE", "300"}}).keep_alive, 300s);
  EXPECT_EQ(config_of({{"OLLAMA_KEEP_ALIVE", "-1"}}).keep_alive, kForever);
  EXPECT_EQ(config_of({{"OLLAMA_KEEP_ALIVE", "0"}}).keep_alive, 0s);
  EXPECT_EQ(config_of({{"OLLAMA_LOAD_TIMEOUT", "0"}}).load_timeout, kForever);
  EXPECT_EQ(config_of({{"OLLAMA_LOAD_TIMEOUT", "-1s"}}).load_timeout, kForever);
}

TEST(Config, Bytes) {
  EXPECT_EQ(config_of({{"OLLAMA_VRAM_MIN_FREE", "1048576"}}).vram_min_free, kMiB);
  EXPECT_EQ(config_of({{"OLLAMA_VRAM_MIN_FREE", "512MiB"}}).vram_min_free, 512 * kMiB);
  EXPECT_EQ(config_of({{"OLLAMA_VRAM_MIN_FREE", "1.5 gib"}}).vram_min_free, kGiB + kGiB / 2);
  EXPECT_EQ(config_of({{"OLLAMA_VRAM_MIN_FREE", "0"}}).vram_min_free, 0U);
  EXPECT_EQ(config_of({{"OLLAMA_GPU_OVERHEAD", "2KiB"}}).gpu_overhead, 2048U);
  for (const char* text :
       {"MiB", "-1MiB", "1TB", "nanMiB", "infGiB", "99999999999999GiB", "1e99"}) {
    const Config config = config_of({{"OLLAMA_VRAM_MIN_FREE", text}});
    EXPECT_EQ(config.vram_min_free, 457 * kMiB) << text;
    EXPECT_EQ(config.warnings.size(), 1U) << text;
  }
}

TEST(Config, Choices) {
  EXPECT_EQ(config_of({{"OLLAMA_KV_CACHE_TYPE", "Q8_0"}}).kv_cache_type, "q8_0");
  EXPECT_EQ(config_of({{"OLLAMA_CPU_KERNELS", "native"}}).cpu_kernels, CpuKernels::kNative);
  const Config config = config_of({{"OLLAMA_KV_CACHE_TYPE", "q1"},
                                   {"OLLAMA_VALIDATION", "maybe"},
                                   {"OLLAMA_CPU_KERNELS", "fast"}});
  EXPECT_EQ(config.kv_cache_type, "f16");
  EXPECT_EQ(config.warnings.size(), 3U);
}

TEST(Config, ValidationIsAlwaysOnceOrOff) {
  EXPECT_EQ(config_of({}).validation, Validation::kOnce);
  for (const auto& [text, mode, shown_as] :
       std::initializer_list<std::tuple<const char*, Validation, const char*>>{
           {"always", Validation::kAlways, "always"},
           {"Once", Validation::kOnce, "once"},
           {" \"OFF\" ", Validation::kOff, "off"}}) {
    const Config config = config_of({{"OLLAMA_VALIDATION", text}});
    EXPECT_EQ(config.validation, mode) << text;
    EXPECT_EQ(shown(config, "OLLAMA_VALIDATION"), shown_as);
    EXPECT_THAT(config.warnings, IsEmpty()) << text;
  }
  for (const char* text : {"enabled", "disabled", "on", "1", "alwaysonce"}) {
    const Config config = config_of({{"OLLAMA_VALIDATION", text}});
    EXPECT_EQ(config.validation, Validation::kOnce) << text;
    EXPECT_THAT(config.warnings, ElementsAre(HasSubstr("using the default once"))) << text;
  }
}

TEST(Config, Lists) {
  const Config config = config_of({{"OLLAMA_ORIGINS", "http://a.example, chrome-extension://*"},
                                   {"OLLAMA_RPC_SERVERS", "h1:50052,,h2:50052 "}});
  ASSERT_EQ(config.origins.size(), 19U);
  EXPECT_EQ(config.origins[0], "http://a.example");
  EXPECT_EQ(config.origins[1], "chrome-extension://*");
  EXPECT_THAT(config.rpc_servers, ElementsAre("h1:50052", "h2:50052"));
}

// The start-up log must not tell passwords.
TEST(Config, SecretsAreNotShown) {
  const Config config = config_of(
      {{"OLLAMA_API_KEYS", "topsecret,other"}, {"HTTPS_PROXY", "http://me:hidden@proxy:3128"}});
  EXPECT_THAT(config.api_keys, ElementsAre("topsecret", "other"));
  EXPECT_EQ(shown(config, "OLLAMA_API_KEYS"), "***");
  EXPECT_EQ(shown(config, "HTTPS_PROXY"), "http://***@proxy:3128");
}

TEST(Config, SmallLettersWinForProxies) {
  const Config config =
      config_of({{"HTTPS_PROXY", "http://a:1"}, {"https_proxy", "http://b:2"}, {"no_proxy", "c"}});
  EXPECT_EQ(config.https_proxy, "http://b:2");
  EXPECT_EQ(config.no_proxy, "c");
}

struct HostCase {
  const char* text;
  const char* url;
  bool warns = false;
};

TEST(Host, EveryFormThatOllamaReads) {
  for (const HostCase& c : std::initializer_list<HostCase>{
           {"", "http://127.0.0.1:11434"},
           {"1.2.3.4", "http://1.2.3.4:11434"},
           {"1.2.3.4:5678", "http://1.2.3.4:5678"},
           {"example.com", "http://example.com:11434"},
           {":8080", "http://0.0.0.0:8080"},
           {"example.com:", "http://example.com:11434", true},
           {"example.com:zzz", "http://example.com:11434", true},
           {"example.com:66000", "http://example.com:11434", true},
           {"example.com:-1", "http://example.com:11434", true},
           {"http://example.com:x", "http://example.com:80", true},
           {"http://1.2.3.4", "http://1.2.3.4:80"},
           {"HTTPS://1.2.3.4", "https://1.2.3.4:443"},
           {"https://1.2.3.4:1234/ollama/", "https://1.2.3.4:1234/ollama"},
           {"example.com/path", "http://example.com:11434/path"},
           {"example.com:80/", "http://example.com:80"},
           {"::1", "http://[::1]:11434"},
           {"[::1]", "http://[::1]:11434"},
           {"[::1]:1234", "http://[::1]:1234"},
           {"0:0:0:0:0:0:0:1", "http://[::1]:11434"},
           {"http://[::]", "http://[::]:80"},
           {"example.com:0", "http://example.com:0"},
       }) {
    std::string warning;
    EXPECT_EQ(parse_host(c.text, &warning).url(), c.url) << '"' << c.text << '"';
    EXPECT_EQ(!warning.empty(), c.warns) << '"' << c.text << "\": " << warning;
  }
}

TEST(Host, ABadPortIsAWarningOfTheConfig) {
  EXPECT_THAT(config_of({{"OLLAMA_HOST", "host:99999"}}).warnings,
              ElementsAre(HasSubstr("OLLAMA_HOST")));
}

TEST(Host, ConnectableAndLoopback) {
  EXPECT_EQ(parse_host("0.0.0.0").connectable().address(), "127.0.0.1:11434");
  EXPECT_EQ(parse_host("[::]:99").connectable().address(), "[::1]:99");
  EXPECT_EQ(parse_host("1.2.3.4").connectable().address(), "1.2.3.4:11434");
  EXPECT_TRUE(parse_host("127.1.2.3").is_loopback());
  EXPECT_TRUE(parse_host("localhost").is_loopback());
  EXPECT_TRUE(parse_host("::1").is_loopback());
  EXPECT_FALSE(parse_host("0.0.0.0").is_loopback());
  EXPECT_FALSE(parse_host("127.0.0.1.example.com").is_loopback());
}

// No text in any variable may stop the program from starting.
TEST(Config, AnyTextIsRead) {
  ASSERT_TRUE(rc::check([](const std::string& text) {
    std::map<std::string, std::string> environment;
    for (const Variable& variable : variables()) environment[std::string(variable.name)] = text;
    const Config config = config_of(environment);
    RC_ASSERT(config.num_parallel >= 1U);
    RC_ASSERT(config.values().size() == variables().size());
  }));
}

}  // namespace
}  // namespace ollama::envconfig

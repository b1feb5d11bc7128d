#include "runner/conversion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "convert/convert.h"
#include "convert/test_checkpoint.h"
#include "gguf/synthetic.h"
#include "gguf/writer.h"

namespace ollama::runner {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// This executable as the process that converts; `mode` makes it misbehave (see main()).
ProcessConverter converter(std::string mode = "--conversion-child") {
  Command command;
  command.arguments = {"runner_test", std::move(mode)};
  command.environment = runner_environment(0);
  return ProcessConverter(std::move(command));
}

class ConversionTest : public testing::Test {
 protected:
  ConversionTest() : folder_(fs::temp_directory_path() / std::format("convert-{}", ::getpid())) {
    fs::create_directories(folder_);
    EXPECT_TRUE(gguf::make_model({.shape = "tiny", .type = "f16", .out = folder_ / "in.gguf"}));
  }
  ~ConversionTest() override { fs::remove_all(folder_); }

  store::Conversion to(std::string mix) const {
    return {.checkpoint = {},
            .model = folder_ / "in.gguf",
            .mix = std::move(mix),
            .output = folder_ / "out.gguf"};
  }
  static bool go_on(std::uint64_t, std::uint64_t) { return true; }
  // The process was waited for: no zombie, and nothing that still runs.
  static void expect_no_children() {
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
  }

  fs::path folder_;
};

TEST_F(ConversionTest, AnotherProcessQuantises) {
  std::uint64_t last = 0;
  std::uint64_t all = 0;
  const auto result = converter().convert(to("Q4_K_M"), [&](std::uint64_t done, std::uint64_t of) {
    last = done;
    all = of;
    return true;
  });
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(gguf::file_type_name(gguf::File::open(folder_ / "out.gguf").value()), "Q4_K_M");
  EXPECT_EQ(last, all);
  expect_no_children();
}

TEST_F(ConversionTest, AnotherProcessConvertsACheckpoint) {
  const auto fixture = gguf::File::open(OLLAMA_TEST_DATA "/arch/llama.gguf").value();
  const convert::testing::Folder checkpoint;
  convert::testing::write_checkpoint(checkpoint, fixture, "llama");
  store::Conversion work{.output = folder_ / "out.gguf"};
  const auto files = convert::find_files(checkpoint.path()).value();
  for (const auto& [name, path] : files) work.checkpoint.push_back({.name = name, .path = path});
  const auto result = converter().convert(work, go_on);
  ASSERT_TRUE(result) << result.error().message();
  const auto made = gguf::File::open(folder_ / "out.gguf").value();
  EXPECT_EQ(made.architecture(), "llama");
  EXPECT_EQ(made.tensors().size(), fixture.tensors().size());

  // Without its configuration it is none.
  std::erase_if(work.checkpoint, [](const auto& file) { return file.name == "config.json"; });
  const auto incomplete = converter().convert(work, go_on);
  ASSERT_FALSE(incomplete);
  EXPECT_THAT(std::string(incomplete.error().message()), HasSubstr("config.json"));
}

TEST_F(ConversionTest, ItsErrorsComeBack) {
  const auto missing = converter().convert(
      {.model = folder_ / "none.gguf", .mix = "Q8_0", .output = folder_ / "out.gguf"}, go_on);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(std::string(missing.error().message()), HasSubstr("none.gguf"));

  std::ofstream(folder_ / "in.gguf") << "GGUF, or so it says";
  const auto broken = converter().convert(to("Q8_0"), go_on);
  ASSERT_FALSE(broken);
  EXPECT_THAT(std::string(broken.error().message()), HasSubstr("in.gguf"));
  expect_no_children();
}

TEST_F(ConversionTest, AnAbortIsAnErrorThatQuotesIt) {
  const auto result = converter("--conversion-child=abort").convert(to("Q8_0"), go_on);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kUnavailable);
  EXPECT_THAT(std::string(result.error().message()),
              testing::AllOf(HasSubstr("ended unexpectedly"), HasSubstr("Aborted"),
                             HasSubstr("GGML_ASSERT(hostile)")));
  expect_no_children();
}

TEST_F(ConversionTest, ItMayNotEndWithoutAWord) {
  const auto result = converter("--conversion-child=silent").convert(to("Q8_0"), go_on);
  ASSERT_FALSE(result);
  EXPECT_THAT(std::string(result.error().message()), HasSubstr("exit status 7"));
}

TEST_F(ConversionTest, GarbageIsAnError) {
  const auto result = converter("--conversion-child=garbage").convert(to("Q8_0"), go_on);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kCorrupt);
  expect_no_children();
}

TEST_F(ConversionTest, CancellingEndsAProcessThatHangs) {
  int asked = 0;
  const auto result =
      converter("--conversion-child=hang").convert(to("Q8_0"), [&](std::uint64_t, std::uint64_t) {
        return ++asked < 3;
      });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kCancelled);
  expect_no_children();
}

TEST_F(ConversionTest, AFullDiskIsAnErrorAndNoSignal) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit little = before;
  little.rlim_cur = 100'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &little), 0);  // the child inherits it
  const auto result = converter().convert(to("Q8_0"), go_on);
  ::setrlimit(RLIMIT_FSIZE, &before);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kIo) << result.error().message();
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(ConversionTest, AProgramThatCannotStartIsAnError) {
  Command command;
  command.executable = folder_ / "none";
  command.arguments = {"none"};
  const auto result = ProcessConverter(command).convert(to("Q8_0"), go_on);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kNotFound);
}

}  // namespace

// The misbehaving processes of these tests.
std::optional<int> serve_as_conversion_child(int argc, char** argv) {
  if (argc < 2 || !std::string_view(argv[1]).starts_with("--conversion-child")) return std::nullopt;
  const std::string_view mode(argv[1]);
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (mode.ends_with("=abort")) {
    std::fputs("quantize.c:1: GGML_ASSERT(hostile) failed\nmore of a backtrace\n", stderr);
    std::abort();
  }
  if (mode.ends_with("=silent")) return 7;
  if (mode.ends_with("=garbage")) {
    const std::string_view garbage("\x05\0\0\0hello", 9);
    [[maybe_unused]] const auto written = ::write(kChildSocket, garbage.data(), garbage.size());
    ::pause();
  }
  if (mode.ends_with("=hang")) ::pause();
  return run_conversion(kChildSocket);
}

}  // namespace ollama::runner

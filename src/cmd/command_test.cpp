// The command line's grammar: what breaks here changes what users' commands and scripts mean.
#include "cmd/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ollama::cmd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

Result<int> nothing(const Arguments& /*arguments*/) { return 0; }

Command make_root() {
  Command root{.name = "ollama",
               .usage = "",
               .summary = "Large language model runner",
               .flags = {{.name = "version", .letter = 'v', .help = "Show version"}},
               .run = nothing};
  Command debug{.name = "debug", .usage = "", .summary = "Look inside"};
  debug.commands = {{.name = "env", .usage = "", .summary = "Print", .run = nothing}};
  root.commands = {
      {.name = "run",
       .usage = "MODEL [PROMPT]",
       .summary = "Run a model",
       .min_arguments = 1,
       .max_arguments = Command::kAny,
       .flags = {{.name = "verbose", .help = "Show timings"},
                 {.name = "format", .kind = FlagKind::kString, .help = "Format"},
                 {.name = "think", .kind = FlagKind::kString, .help = "Think", .implied = "true"},
                 {.name = "dimensions", .kind = FlagKind::kInt, .help = "D", .fallback = "7"}},
       .run = nothing},
      {.name = "list",
       .usage = "",
       .summary = "List models",
       .max_arguments = Command::kAny,
       .aliases = {"ls"},
       .run = nothing},
      {.name = "show",
       .usage = "MODEL",
       .summary = "Show",
       .min_arguments = 1,
       .max_arguments = 1,
       .run = nothing},
      {.name = "create",
       .usage = "MODEL",
       .summary = "Create",
       .min_arguments = 1,
       .max_arguments = 1,
       .flags = {{.name = "file", .letter = 'f', .kind = FlagKind::kString, .help = "File"}},
       .run = nothing},
      {.name = "secret", .usage = "", .summary = "Hidden", .hidden = true, .run = nothing},
      debug};
  return root;
}

class CommandLine : public ::testing::Test {
 protected:
  Result<Invocation> parse(const std::vector<std::string>& arguments) const {
    return cmd::parse(root_, arguments);
  }
  std::string error(const std::vector<std::string>& arguments) const {
    const auto result = parse(arguments);
    return result ? "no error" : std::string(result.error().message());
  }
  Command root_ = make_root();
};

TEST_F(CommandLine, FlagsStandBeforeAndBehindArguments) {
  const auto run = parse({"run", "--verbose", "m", "a", "--format", "json", "b"});
  ASSERT_TRUE(run);
  EXPECT_EQ(run->path, "ollama run");
  EXPECT_THAT(run->arguments.positional(), ElementsAre("m", "a", "b"));
  EXPECT_TRUE(run->arguments.boolean("verbose"));
  EXPECT_EQ(run->arguments.text("format"), "json");
  EXPECT_FALSE(run->arguments.given("dimensions"));
  EXPECT_EQ(run->arguments.number("dimensions"), 7);
}

TEST_F(CommandLine, ValuesFollowAnEqualsSignToo) {
  const auto run = parse({"run", "m", "--verbose=false", "--format=json", "--dimensions=3"});
  ASSERT_TRUE(run);
  EXPECT_TRUE(run->arguments.given("verbose"));
  EXPECT_FALSE(run->arguments.boolean("verbose"));
  EXPECT_EQ(run->arguments.text("format"), "json");
  EXPECT_EQ(run->arguments.number("dimensions"), 3);
}

// `run m --think "why?"` must not take the question for the flag's value.
TEST_F(CommandLine, AFlagWithAnImpliedValueTakesNoWord) {
  const auto run = parse({"run", "m", "--think", "why?"});
  ASSERT_TRUE(run);
  EXPECT_EQ(run->arguments.text("think"), "true");
  EXPECT_THAT(run->arguments.positional(), ElementsAre("m", "why?"));
  const auto level = parse({"run", "m", "--think=high"});
  ASSERT_TRUE(level);
  EXPECT_EQ(level->arguments.text("think"), "high");
}

// Words of a prompt that are commands' names are words.
TEST_F(CommandLine, ArgumentsMayLookLikeCommands) {
  const auto run = parse({"run", "list", "show", "help"});
  ASSERT_TRUE(run);
  EXPECT_EQ(run->command->name, "run");
  EXPECT_THAT(run->arguments.positional(), ElementsAre("list", "show", "help"));
}

TEST_F(CommandLine, TwoDashesEndTheFlags) {
  const auto run = parse({"run", "m", "--", "--verbose", "-x"});
  ASSERT_TRUE(run);
  EXPECT_THAT(run->arguments.positional(), ElementsAre("m", "--verbose", "-x"));
  EXPECT_FALSE(run->arguments.boolean("verbose"));
}

TEST_F(CommandLine, ADashIsAValue) {
  const auto create = parse({"create", "m", "-f", "-"});
  ASSERT_TRUE(create);
  EXPECT_EQ(create->arguments.text("file"), "-");
}

TEST_F(CommandLine, AliasesAndGroups) {
  const auto list = parse({"ls"});
  ASSERT_TRUE(list);
  EXPECT_EQ(list->command->name, "list");
  const auto env = parse({"debug", "env"});
  ASSERT_TRUE(env);
  EXPECT_EQ(env->path, "ollama debug env");
  const auto version = parse({"-v"});
  ASSERT_TRUE(version);
  EXPECT_TRUE(version->arguments.boolean("version"));
}

TEST_F(CommandLine, HelpIsAFlagAndACommand) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"run", "--help"}, {"run", "-h"}, {"--help", "run"}, {"help", "run"}}) {
    const auto help = parse(arguments);
    ASSERT_TRUE(help) << arguments[0];
    EXPECT_TRUE(help->help);
    EXPECT_EQ(help->command->name, "run");
  }
}

// The words of Ollama's command line, which scripts look for.
TEST_F(CommandLine, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(error({"frobnicate"}), "unknown command \"frobnicate\" for \"ollama\"");
  EXPECT_THAT(error({"lisst"}), HasSubstr("Did you mean this?\n\tlist"));
  EXPECT_EQ(error({"debug", "x-ray"}), "unknown command \"x-ray\" for \"ollama debug\"");
  EXPECT_EQ(error({"list", "--nope=1"}), "unknown flag: --nope");
  EXPECT_EQ(error({"list", "-z"}), "unknown shorthand flag: 'z' in -z");
  EXPECT_EQ(error({"show"}), "accepts 1 arg(s), received 0");
  EXPECT_EQ(error({"show", "a", "b"}), "accepts 1 arg(s), received 2");
  EXPECT_EQ(error({"run"}), "requires at least 1 arg(s), only received 0");
  EXPECT_EQ(error({"run", "m", "--format"}), "flag needs an argument: --format");
  EXPECT_THAT(error({"run", "m", "--dimensions", "x"}), HasSubstr("invalid argument \"x\""));
  EXPECT_THAT(error({"run", "m", "--verbose=maybe"}), HasSubstr("must be true or false"));
}

TEST_F(CommandLine, HelpTextShowsFlagsAndCommands) {
  const std::string top = help_text(root_, "ollama", "");
  EXPECT_THAT(top, HasSubstr("Usage:\n  ollama [flags]\n  ollama [command]\n"));
  EXPECT_THAT(top, HasSubstr("  run         Run a model\n"));
  EXPECT_THAT(top, HasSubstr("  -v, --version   Show version\n"));
  EXPECT_THAT(top, Not(HasSubstr("secret")));
  const std::string run = help_text(root_.commands[0], "ollama run", "Environment Variables:\n");
  EXPECT_THAT(run, HasSubstr("  ollama run MODEL [PROMPT] [flags]\n"));
  EXPECT_THAT(run, HasSubstr("      --think string[=\"true\"]"));
  EXPECT_THAT(run, HasSubstr("\nEnvironment Variables:\n"));
}

}  // namespace
}  // namespace ollama::cmd

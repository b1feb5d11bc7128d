// The interactive prompt without its terminal: lines, history, slash commands.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "cmd/answer.h"
#include "cmd/history.h"
#include "cmd/interactive.h"
#include "cmd/interrupt.h"
#include "cmd/model_path.h"
#include "cmd/prompt_input.h"
#include "cmd/terminal.h"

namespace ollama::cmd {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using Kind = PromptInput::Kind;

PromptInput::Event event(Kind kind, std::string text = {}) { return {kind, std::move(text)}; }

// ---- Lines

TEST(PromptInput, ALineIsAMessage) {
  PromptInput input;
  EXPECT_EQ(input.add("hello"), event(Kind::kMessage, "hello"));
  EXPECT_EQ(input.add(""), event(Kind::kNothing));
  EXPECT_EQ(input.add("  \t"), event(Kind::kNothing));
  EXPECT_FALSE(input.continues());
}

TEST(PromptInput, QuotesSpanLines) {
  PromptInput input;
  EXPECT_EQ(input.add("\"\"\"first"), event(Kind::kMore));
  EXPECT_TRUE(input.continues());
  EXPECT_EQ(input.add("/bye is text here"), event(Kind::kMore));
  EXPECT_EQ(input.add("last\"\"\""), event(Kind::kMessage, "first\n/bye is text here\nlast"));
  EXPECT_FALSE(input.continues());
  EXPECT_EQ(input.add("\"\"\"all at once\"\"\""), event(Kind::kMessage, "all at once"));
}

// A pasted text must not run commands, nor be sent line by line.
TEST(PromptInput, PastedLinesAreOneMessage) {
  PromptInput input;
  EXPECT_EQ(input.add("one", true), event(Kind::kMore));
  EXPECT_EQ(input.add("/bye", true), event(Kind::kMore));
  EXPECT_EQ(input.add("/clear"), event(Kind::kMessage, "one\n/bye\n/clear"));
}

TEST(PromptInput, CtrlCForgetsABlock) {
  PromptInput input;
  input.add("\"\"\"half");
  input.reset();
  EXPECT_EQ(input.add("new"), event(Kind::kMessage, "new"));
}

TEST(PromptInput, SystemMessagesSpanLines) {
  PromptInput input;
  EXPECT_EQ(input.begin_system("be brief"), event(Kind::kSystem, "be brief"));
  EXPECT_EQ(input.begin_system("\"\"\"be"), event(Kind::kMore));
  EXPECT_EQ(input.add("brief\"\"\""), event(Kind::kSystem, "be\nbrief"));
}

TEST(PromptInput, SlashesBeginCommands) {
  PromptInput input;
  EXPECT_EQ(input.add("/set verbose"), event(Kind::kCommand, "/set verbose"));
  EXPECT_EQ(input.add("a /path"), event(Kind::kMessage, "a /path"));
}

// ---- History

class HistoryFile : public ::testing::Test {
 protected:
  HistoryFile() {
    std::string name = ::testing::TempDir() + "history-XXXXXX";
    directory_ = ::mkdtemp(name.data());
    path_ = directory_ / "sub" / "history";
  }
  ~HistoryFile() override { std::filesystem::remove_all(directory_); }
  std::string read() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::filesystem::path directory_;
  std::filesystem::path path_;
};

TEST_F(HistoryFile, KeepsLinesInOllamasFormat) {
  {
    History history(path_);
    EXPECT_TRUE(history.add("one"));
    EXPECT_TRUE(history.add("zwei ü"));
    EXPECT_FALSE(history.add("zwei ü")) << "the same line twice";
    EXPECT_FALSE(history.add(""));
  }
  EXPECT_EQ(read(), "one\nzwei ü\n");
  EXPECT_THAT(History(path_).entries(), ElementsAre("one", "zwei ü"));
}

TEST_F(HistoryFile, OnlyItsUserReadsIt) {
  History(path_).add("secret");
  const auto permissions = std::filesystem::status(path_).permissions();
  EXPECT_EQ(permissions & (std::filesystem::perms::group_all | std::filesystem::perms::others_all),
            std::filesystem::perms::none);
}

TEST_F(HistoryFile, StaysBounded) {
  std::filesystem::create_directories(path_.parent_path());
  {
    std::ofstream file(path_);
    for (std::size_t i = 0; i < 3 * History::kLimit; ++i) file << "line " << i << '\n';
  }
  const History history(path_);
  EXPECT_EQ(history.entries().size(), History::kLimit);
  EXPECT_EQ(history.entries().back(), std::format("line {}", 3 * History::kLimit - 1));
  const std::string text = read();
  EXPECT_EQ(static_cast<std::size_t>(std::ranges::count(text, '\n')), History::kLimit);
}

TEST_F(HistoryFile, CanBeOff) {
  History history(path_);
  history.enable(false);
  EXPECT_FALSE(history.add("one"));
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_TRUE(History("").add("kept in memory only"));
}

// ---- Slash commands

class FakeHost final : public ModelHost {
 public:
  Result<api::ShowResponse> show(const api::ShowRequest& request) override {
    if (request.model == "missing") return fail(ErrorCode::kNotFound, "model 'missing' not found");
    api::ShowResponse model;
    model.capabilities = {"completion"};
    if (request.model == "thinker") model.capabilities.emplace_back("thinking");
    model.template_text = "{{ .Prompt }}";
    return model;
  }
  Result<> load(const api::GenerateRequest& request, const LoadProgress& /*progress*/) override {
    loaded.push_back(request.model);
    return {};
  }
  Result<> generate(const api::GenerateRequest& request, std::stop_token /*stop*/,
                    const std::function<bool(const api::GenerateResponse&)>& callback) override {
    api::GenerateResponse response;
    response.response = "to " + request.prompt;
    callback(response);
    return {};
  }
  Result<> chat(const api::ChatRequest& request, std::stop_token stop,
                const std::function<bool(const api::ChatResponse&)>& callback) override {
    chats.push_back(request);
    api::ChatResponse response;
    response.message.content = "part";
    callback(response);
    if (interrupts) {
      std::raise(SIGINT);
      while (!stop.stop_requested()) std::this_thread::yield();
      return fail(ErrorCode::kCancelled, "cancelled");
    }
    response.message.content = " and rest";
    callback(response);
    return {};
  }
  Result<> create(const api::CreateRequest& request) override {
    created.push_back(request);
    return {};
  }
  Result<api::EmbedResponse> embed(const api::EmbedRequest& /*request*/) override {
    return api::EmbedResponse{};
  }

  bool interrupts = false;
  std::vector<std::string> loaded;
  std::vector<api::ChatRequest> chats;
  std::vector<api::CreateRequest> created;
};

class SlashCommand : public ::testing::Test {
 protected:
  SlashCommand() { session_.model = "m"; }
  // What the command printed.
  std::string run(std::string_view line) {
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    outcome_ = run_slash_command(line, host_, session_);
    std::fflush(stdout);
    return ::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr();
  }
  FakeHost host_;
  Session session_;
  CommandOutcome outcome_;
};

TEST_F(SlashCommand, SetParameterChecksTheValue) {
  EXPECT_EQ(run("/set parameter temperature 0.5"), "Set parameter 'temperature' to '0.5'\n");
  EXPECT_EQ(run("/set parameter stop a b"), "Set parameter 'stop' to 'a, b'\n");
  EXPECT_EQ(api::to_string(session_.options.at("stop")), R"(["a","b"])");
  EXPECT_THAT(run("/set parameter temperature hot"), HasSubstr("Couldn't set parameter"));
  EXPECT_THAT(run("/set parameter nonsense 1"), HasSubstr("Couldn't set parameter"));
  EXPECT_THAT(run("/set parameter"), HasSubstr("/set parameter seed <int>"));
  EXPECT_EQ(session_.options.size(), 2U);
}

TEST_F(SlashCommand, SetSwitches) {
  run("/set verbose");
  run("/set nowordwrap");
  EXPECT_EQ(run("/set format json"), "Set format to 'json' mode.\n");
  EXPECT_TRUE(session_.verbose);
  EXPECT_FALSE(session_.word_wrap);
  EXPECT_EQ(session_.format, api::Json("json"));
  run("/set quiet");
  run("/set wordwrap");
  run("/set noformat");
  EXPECT_FALSE(session_.verbose);
  EXPECT_TRUE(session_.word_wrap);
  EXPECT_TRUE(session_.format.is_null());
  EXPECT_THAT(run("/set format yaml"), HasSubstr("Invalid or missing format"));
  run("/set nohistory");
  EXPECT_EQ(outcome_.result, CommandResult::kHistory);
  EXPECT_FALSE(outcome_.enabled);
}

TEST_F(SlashCommand, SetThinkWarnsWhenTheModelCannot) {
  EXPECT_THAT(run("/set think high"), HasSubstr("does not support thinking"));
  ASSERT_TRUE(session_.think);
  EXPECT_EQ(session_.think->level, "high");
  EXPECT_TRUE(session_.think_chosen);
  session_.model = "thinker";
  EXPECT_EQ(run("/set nothink"), "Set 'nothink' mode.\n");
  EXPECT_FALSE(session_.think->enabled);
}

TEST_F(SlashCommand, SystemKeepsBlanks) {
  run("/set system Be  brief,   please");
  EXPECT_EQ(outcome_.result, CommandResult::kSystem);
  EXPECT_EQ(outcome_.text, "Be  brief,   please");
  set_system(session_, outcome_.text);
  set_system(session_, "Other");
  EXPECT_EQ(session_.messages.size(), 1U) << "one system message replaces the other";
  run("/clear");
  ASSERT_EQ(session_.messages.size(), 1U) << "clearing keeps the system message";
  EXPECT_EQ(session_.messages[0].content, "Other");
}

TEST_F(SlashCommand, LoadGoesBackWhenThereIsNoSuchModel) {
  session_.messages.emplace_back().content = "before";
  EXPECT_THAT(run("/load missing"), HasSubstr("Couldn't find model 'missing'"));
  EXPECT_EQ(session_.model, "m");
  EXPECT_EQ(session_.messages.size(), 1U);
  run("/load thinker");
  EXPECT_EQ(session_.model, "thinker");
  EXPECT_TRUE(session_.messages.empty());
  EXPECT_TRUE(session_.think && session_.think->enabled) << "a model that thinks does";
  EXPECT_THAT(host_.loaded, ElementsAre("thinker"));
  EXPECT_THAT(run("/load"), HasSubstr("Usage:"));
}

TEST_F(SlashCommand, SaveKeepsTheConversation) {
  run("/set parameter top_k 5");
  set_system(session_, "sys");
  EXPECT_EQ(run("/save mine"), "Created new model 'mine'\n");
  ASSERT_EQ(host_.created.size(), 1U);
  EXPECT_EQ(host_.created[0].model, "mine");
  EXPECT_EQ(host_.created[0].from, "m");
  EXPECT_EQ(host_.created[0].system, "sys");
  EXPECT_EQ(host_.created[0].messages.size(), 1U);
  EXPECT_TRUE(host_.created[0].parameters.contains("top_k"));
}

TEST_F(SlashCommand, ShowSaysWhatIsMissing) {
  EXPECT_EQ(run("/show template"), "{{ .Prompt }}\n");
  EXPECT_EQ(run("/show license"), "No license was specified for this model.\n");
  EXPECT_THAT(run("/show parameters"), HasSubstr("No additional parameters"));
  EXPECT_THAT(run("/show"), HasSubstr("/show modelfile"));
}

TEST_F(SlashCommand, UnknownOnesSaySo) {
  EXPECT_EQ(run("/frobnicate now"), "Unknown command '/frobnicate'. Type /? for help\n");
  EXPECT_EQ(run("/set colour"), "Unknown command '/set colour'. Type /? for help\n");
  EXPECT_EQ(run("/show colour"), "Unknown command '/show colour'. Type /? for help\n");
}

TEST_F(SlashCommand, HelpAndLeaving) {
  EXPECT_THAT(run("/?"), HasSubstr("/load <model>"));
  EXPECT_THAT(run("/? shortcuts"), HasSubstr("Ctrl + d"));
  EXPECT_THAT(run("/help set"), HasSubstr("/set nowordwrap"));
  run("/bye");
  EXPECT_EQ(outcome_.result, CommandResult::kLeave);
}

// ---- Answers

TEST_F(SlashCommand, AnAnswerJoinsTheConversation) {
  session_.messages.emplace_back().content = "question";
  ::testing::internal::CaptureStdout();
  ASSERT_TRUE(chat_once(host_, session_));
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "part and rest\n\n");
  ASSERT_EQ(session_.messages.size(), 2U);
  EXPECT_EQ(session_.messages[1].role, "assistant");
  EXPECT_EQ(session_.messages[1].content, "part and rest");
}

// An answer that ends while it thinks: what is printed next must not be grey too.
TEST(AnswerPrinter, GivesTheColourBack) {
  AnswerPrinter printer({.word_wrap = false, .terminal = true}, nullptr);
  ::testing::internal::CaptureStdout();
  printer.add("Hm", {}, {});
  printer.finish();
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), EndsWith("Hm" + std::string(kPlain)));
  ::testing::internal::CaptureStdout();
  printer.finish();
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
}

// Ctrl-C stops the answer, not the program, and what came of it stays in the conversation.
TEST_F(SlashCommand, CtrlCKeepsWhatCame) {
  host_.interrupts = true;
  ::testing::internal::CaptureStdout();
  ASSERT_TRUE(chat_once(host_, session_));
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "part\n\n");
  ASSERT_EQ(session_.messages.size(), 1U);
  EXPECT_EQ(session_.messages[0].content, "part");
}

TEST(Interrupt, GivesTheSignalBack) {
  struct sigaction before{};
  struct sigaction after{};
  ::sigaction(SIGINT, nullptr, &before);
  {
    const Interrupt interrupt;
    EXPECT_FALSE(interrupt.requested());
    std::raise(SIGINT);
    while (!interrupt.requested()) std::this_thread::yield();
  }
  ::sigaction(SIGINT, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

// ---- Paths

TEST(ModelPath, TellsFilesFromNames) {
  EXPECT_TRUE(is_model_file("./x.gguf"));
  EXPECT_TRUE(is_model_file("/abs/model"));
  EXPECT_TRUE(is_model_file("~/model.gguf"));
  EXPECT_FALSE(is_model_file("llama3.2"));
  EXPECT_FALSE(is_model_file("hf.co/x/y:q4.gguf")) << "a tag may look like a file";
  EXPECT_TRUE(is_model_file(OLLAMA_SOURCE_DIR "/models/stories260K-f16.gguf"));
}

}  // namespace
}  // namespace ollama::cmd

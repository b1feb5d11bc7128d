#include "chat/prompt.h"

#include <gtest/gtest.h>

#include "chat/turns.h"

namespace ollama::chat {
namespace {

api::Message message(std::string role, std::string content) {
  api::Message result;
  result.role = std::move(role);
  result.content = std::move(content);
  return result;
}

const std::vector<api::Message> kTalk{message("system", "Be brief."), message("user", "Hi"),
                                      message("assistant", "Hello."), message("user", "Bye")};

Result<std::string> prompt_for(std::span<const api::Message> messages, std::string_view text,
                               PromptRenderer::Model model = {}) {
  return PromptRenderer(std::move(model))
      .render({.chat = {.messages = messages}, .template_text = text});
}

// The bundled model continues a bare text: any marker around it would change its story.
TEST(Prompt, BareContents) {
  for (const char* text : {"", "{{ .Prompt }}", "{{.Prompt}}", "{{- .Prompt -}}\n"}) {
    const std::vector<api::Message> one{message("user", "Once upon a time")};
    EXPECT_EQ(prompt_for(one, text).value(), "Once upon a time") << text;
  }
  EXPECT_EQ(prompt_for(kTalk, "").value(), "Be brief.\nHi\nHello.\nBye");
}

// The model's own Go template comes first, then its Jinja, then its architecture.
TEST(Prompt, ChoosesWhatTheModelHas) {
  const PromptRenderer::Model gemma{
      .architecture = "gemma3",
      .jinja = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"};
  EXPECT_EQ(prompt_for(kTalk, "{{ range .Messages }}<{{ .Role }}>{{ end }}", gemma).value(),
            "<system><user><assistant><user>");
  EXPECT_EQ(prompt_for(kTalk, "", gemma).value(),
            "system=Be brief.;user=Hi;assistant=Hello.;user=Bye;");
  // A Jinja template that is broken tells at least what the model was trained on.
  EXPECT_EQ(
      prompt_for(kTalk, "", {.architecture = "gemma3", .jinja = "{% for <|im_start|>"}).value(),
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
      "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
      "<|im_start|>assistant\n");
  EXPECT_EQ(prompt_for(kTalk, "", {.architecture = "gemma3"}).value(),
            "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello."
            "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n");
}

// A form of ours goes on with an answer that is given as the last message.
TEST(Prompt, ContinuesAnAnswer) {
  const std::vector<api::Message> begun{message("user", "Count"), message("assistant", "1, 2")};
  EXPECT_TRUE(prompt_for(begun, "", {.architecture = "phi3"}).value().ends_with("1, 2"));
}

TEST(Prompt, ImagesHaveTheirPlaces) {
  std::vector<api::Message> talk{message("user", "a"), message("user", "here [img] or [img]?")};
  talk[0].images.resize(1);
  talk[1].images.resize(3);
  constexpr std::string_view kSecond = "[img-3]here [img-1] or [img-2]?";
  EXPECT_EQ(prompt_for(talk, "{{ .Prompt }}").value(), std::format("[img-0]a\n{}", kSecond));
  EXPECT_EQ(
      prompt_for(talk, "", {.architecture = "phi3"}).value(),
      std::format("<|user|>\n[img-0]a<|end|>\n<|user|>\n{}<|end|>\n<|assistant|>\n", kSecond));
}

// Also those of a system's message that has no place of its own.
TEST(Prompt, ImagesOfTheSystem) {
  std::vector<api::Message> talk{message("system", "a"), message("user", "b")};
  talk[0].images.resize(1);
  talk[1].images.resize(1);
  EXPECT_EQ(prompt_for(talk, "", {.architecture = "gemma3"}).value(),
            "<start_of_turn>user\n[img-0]a\n\n[img-1]b<end_of_turn>\n<start_of_turn>model\n");
  constexpr const char* kNoSystem =
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
      "{% endif %}{{ m.content }}{% endfor %}";
  EXPECT_EQ(prompt_for(talk, "", {.jinja = kNoSystem}).value(), "[img-0][img-1]a\n\nb");
}

// The parsed templates that are kept must not be mixed up, nor those that are dropped for others.
TEST(Prompt, KeepsTemplatesApart) {
  PromptRenderer renderer({});
  const std::vector<api::Message> one{message("user", "x")};
  for (int i = 0; i < 40; ++i) {
    const std::string text = std::format("{}{{{{ .Prompt }}}}", i % 7);
    EXPECT_EQ(renderer.render({.chat = {.messages = one}, .template_text = text}).value(),
              std::format("{}x", i % 7));
  }
}

TEST(Prompt, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(prompt_for({}, "").error().code(), ErrorCode::kInvalidArgument);
  const auto broken = prompt_for(kTalk, "a\n{{ .Prompt");
  ASSERT_FALSE(broken.has_value());
  EXPECT_EQ(broken.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(broken.error().message().starts_with("template:2:")) << broken.error().message();
  const api::Json tools = api::parse_json(R"([{"type":"function"}])").value();
  EXPECT_FALSE(PromptRenderer({.architecture = "gemma3"})
                   .render({.chat = {.messages = kTalk, .tools = &tools}})
                   .has_value());
  EXPECT_FALSE(PromptRenderer({}).render({.chat = {.prompt = "a", .suffix = "b"}}).has_value());
}

// What is left of a conversation with `kept` turns, as the messages' contents.
std::string left(const std::vector<api::Message>& messages, std::size_t kept) {
  std::string text;
  for (const api::Message& one : Turns(messages).newest(kept)) text += one.content;
  return text;
}

TEST(Turns, AreAQuestionAndItsAnswers) {
  const std::vector<api::Message> talk{message("assistant", "0"), message("system", "s"),
                                       message("user", "a"),      message("assistant", "b"),
                                       message("tool", "c"),      message("user", "d"),
                                       message("user", "e"),      message("system", "t")};
  const Turns turns(talk);
  EXPECT_EQ(turns.count(), 3U);
  EXPECT_EQ(turns.fewest(), 0U);
  EXPECT_EQ(left(talk, 0), "set");
  EXPECT_EQ(left(talk, 1), "sdet");
  EXPECT_EQ(left(talk, 2), "sabcdet");
  EXPECT_EQ(left(talk, 3), "0sabcdet");
  EXPECT_EQ(left(talk, 99), "0sabcdet");
}

TEST(Turns, KeepTheQuestionBehindManySteps) {
  const std::vector<api::Message> work{message("user", "a"),      message("assistant", "b"),
                                       message("user", "q"),      message("assistant", "1"),
                                       message("tool", "x"),      message("tool", "y"),
                                       message("assistant", "2"), message("tool", "z")};
  EXPECT_EQ(Turns(work).count(), 3U);
  EXPECT_EQ(Turns(work).fewest(), 1U);
  EXPECT_EQ(left(work, 1), "q2z");
  EXPECT_EQ(left(work, 2), "q1xy2z");
  EXPECT_EQ(left(work, 3), "abq1xy2z");
}

TEST(Turns, NeedNoQuestion) {
  const std::vector<api::Message> work{message("system", "s"), message("tool", "0"),
                                       message("assistant", "1"), message("assistant", "2")};
  EXPECT_EQ(left(work, Turns(work).fewest()), "s2");
  EXPECT_EQ(left(work, 2), "s12");
  EXPECT_EQ(Turns(work).count(), 3U);
  EXPECT_EQ(Turns({}).count(), 0U);
  EXPECT_EQ(Turns({}).fewest(), 0U);
}

}  // namespace
}  // namespace ollama::chat

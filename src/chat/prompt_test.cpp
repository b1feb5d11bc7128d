#include "chat/prompt.h"

#include <gtest/gtest.h>

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

// The bundled model continues a bare text: any marker around it would change its story.
TEST(Prompt, BareContents) {
  for (const char* text : {"", "{{ .Prompt }}", "{{.Prompt}}", "{{- .Prompt -}}\n"}) {
    const std::vector<api::Message> one{message("user", "Once upon a time")};
    EXPECT_EQ(render({.messages = one, .template_text = text}).value(), "Once upon a time") << text;
  }
  EXPECT_EQ(render({.messages = kTalk}).value(), "Be brief.\nHi\nHello.\nBye");
}

// Turns are rendered whole, the last one up to where the answer goes: otherwise history is lost or
// the model is told that its answer has already ended.
TEST(Prompt, SubstitutesFieldsPerTurn) {
  EXPECT_EQ(render({.messages = kTalk,
                    .template_text = "[S]{{ .System }}[U]{{ .Prompt }}[A]{{ .Response }}[E]"})
                .value(),
            "[S]Be brief.[U]Hi[A]Hello.[E][S][U]Bye[A]");
  EXPECT_EQ(render({.messages = kTalk, .template_text = "Q: {{ .Prompt }}\nA: "}).value(),
            "Q: Hi\nA: Hello.Q: Bye\nA: ");
}

TEST(Prompt, TrimsBlanksWhereTheTemplateSays) {
  const std::vector<api::Message> one{message("user", "x")};
  EXPECT_EQ(render({.messages = one, .template_text = "a  {{- .Prompt -}}  b"}).value(), "axb");
}

// A template beyond the understood subset must still give a usable prompt, in the model's own
// markers.
TEST(Prompt, FallsBackToAFormat) {
  EXPECT_EQ(render({.messages = kTalk,
                    .template_text = "{{ range .Messages }}<|im_start|>{{ .Role }}{{ end }}"})
                .value(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(render({.messages = kTalk, .template_text = "{% x %}{{ y }}", .architecture = "gemma3"})
                .value(),
            "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello."
            "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n");
}

// An answer given as the last message is to be continued, not closed.
TEST(Prompt, ContinuesAnAnswer) {
  const std::vector<api::Message> begun{message("user", "Count"), message("assistant", "1, 2")};
  EXPECT_EQ(render({.messages = begun, .template_text = "{{ .Prompt }}|{{ .Response }}|"}).value(),
            "Count|1, 2");
  EXPECT_TRUE(render({.messages = begun, .template_text = "{{ if .System }}{{ end }}"})
                  .value()
                  .ends_with("1, 2"));
}

TEST(Prompt, HostileTemplates) {
  for (const char* text : {"{{", "{{ .Prompt", "}}", "{{}}", "{{ {{ .Prompt }} }}", "{{--}}"}) {
    EXPECT_TRUE(render({.messages = kTalk, .template_text = text}).has_value()) << text;
  }
  EXPECT_EQ(render({}).error().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace ollama::chat

#include "cmd/interactive.h"

#include <cstdlib>
#include <print>

#include "cmd/external_editor.h"
#include "cmd/history.h"
#include "cmd/line_editor.h"
#include "cmd/prompt_input.h"

namespace ollama::cmd {
namespace {

std::filesystem::path history_file(const envconfig::Config& config) {
  const char* home = std::getenv("HOME");
  if (config.no_history || home == nullptr || *home == 0) return {};
  return std::filesystem::path(home) / ".ollama" / "history";
}

class Prompt {
 public:
  Prompt(ModelHost& host, Session& session, const envconfig::Config& config)
      : host_(host), session_(session), config_(config), history_(history_file(config)) {
    history_.enable(!config.no_history);
    editor_ = std::make_unique<LineEditor>(history_);
  }

  void run() {
    while (true) {
      const LineEditor::Input input = read();
      switch (input.kind) {
        case LineEditor::Kind::kEnd:
          std::println("");
          return;
        case LineEditor::Kind::kInterrupt:
          if (input.text.empty() && !input_.continues()) {
            std::println("Use Ctrl + d or /bye to exit.");
          }
          input_.reset();
          break;
        case LineEditor::Kind::kEdit:
          edit(input.text);
          break;
        case LineEditor::Kind::kLine:
          if (history_.add(input.text)) editor_->remember(input.text);
          if (!handle(input_.add(input.text, input.pasting))) return;
          break;
      }
    }
  }

 private:
  LineEditor::Input read() {
    if (input_.in_block()) return editor_->read("... ", "");
    if (input_.continues()) return editor_->read("... ", "Press Enter to send");
    return editor_->read(">>> ", "Send a message (/? for help)");
  }

  // false: the user leaves.
  bool handle(PromptInput::Event event) {
    switch (event.kind) {
      case PromptInput::Kind::kNothing:
      case PromptInput::Kind::kMore:
        return true;
      case PromptInput::Kind::kMessage:
        ask(std::move(event.text));
        return true;
      case PromptInput::Kind::kSystem:
        set_system(session_, std::move(event.text));
        std::println("Set system message.");
        return true;
      case PromptInput::Kind::kCommand:
        return command(event.text);
    }
    return true;
  }

  bool command(const std::string& line) {
    const CommandOutcome outcome = run_slash_command(line, host_, session_);
    switch (outcome.result) {
      case CommandResult::kDone:
        return true;
      case CommandResult::kLeave:
        return false;
      case CommandResult::kSystem:
        return handle(input_.begin_system(outcome.text));
      case CommandResult::kHistory:
        history_.enable(outcome.enabled);
        return true;
    }
    return true;
  }

  void ask(std::string text) {
    api::Message message;
    message.role = "user";
    message.content = std::move(text);
    session_.messages.push_back(std::move(message));
    if (const auto result = chat_once(host_, session_); !result) {
      session_.messages.pop_back();  // a question without an answer is none
      std::println(stderr, "error: {}", result.error().message());
    }
  }

  // The lines before the last become a block, the last one can be edited on.
  void edit(const std::string& begun) {
    input_.reset();
    const auto text = edit_text(begun, config_.editor);
    if (!text) {
      std::println(stderr, "error: {}", text.error().message());
      return;
    }
    std::string_view rest = *text;
    for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
      std::println("{}{}", input_.continues() ? "... " : ">>> ", rest.substr(0, end));
      input_.add(rest.substr(0, end), true);
      rest.remove_prefix(end + 1);
    }
    editor_->prefill(rest);
  }

  ModelHost& host_;
  Session& session_;
  const envconfig::Config& config_;
  History history_;
  std::unique_ptr<LineEditor> editor_;
  PromptInput input_;
};

}  // namespace

Result<> run_interactive(ModelHost& host, Session& session, const envconfig::Config& config) {
  Prompt(host, session, config).run();
  return {};
}

}  // namespace ollama::cmd

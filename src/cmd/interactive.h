// The prompt of `ollama run MODEL`: messages, and commands that begin with a slash.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "cmd/session.h"
#include "envconfig/config.h"

namespace ollama::cmd {

// Until the user leaves. Errors of the server are printed and the conversation goes on.
Result<> run_interactive(ModelHost& host, Session& session, const envconfig::Config& config);

// What a slash command led to.
enum class CommandResult : std::uint8_t {
  kDone,
  kLeave,    // /bye
  kSystem,   // "/set system": `text` is the message, or the beginning of a block
  kHistory,  // "/set history" or "/set nohistory": `enabled`
};
struct CommandOutcome {
  CommandResult result = CommandResult::kDone;
  std::string text = {};
  bool enabled = false;
};
// Carries out one line that begins with a slash; prints what it has to say.
CommandOutcome run_slash_command(std::string_view line, ModelHost& host, Session& session);

// Sets the system message of the conversation that follows.
void set_system(Session& session, std::string text);

}  // namespace ollama::cmd

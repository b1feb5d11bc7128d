#include "cmd/session.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cmd/answer.h"
#include "cmd/interrupt.h"
#include "cmd/progress.h"
#include "cmd/summary.h"
#include "cmd/terminal.h"

namespace ollama::cmd {
namespace {

template <typename Request>
Request make_request(const Session& session) {
  Request request;
  request.model = session.model;
  request.options = session.options;
  request.format = session.format;
  request.keep_alive = session.keep_alive;
  request.think = session.think;
  return request;
}

AnswerStyle style_of(const Session& session) {
  return {.word_wrap = session.word_wrap,
          .hide_thinking = session.hide_thinking,
          .terminal = is_terminal(STDOUT_FILENO)};
}

void finish_answer() {
  std::fputs("\n\n", stdout);
  std::fflush(stdout);
}

void print_summary(const Session& session, const api::Metrics& metrics) {
  if (session.verbose) std::fputs(format_summary(metrics).c_str(), stderr);
}

}  // namespace

Result<> generate_once(ModelHost& host, const Session& session) {
  auto request = make_request<api::GenerateRequest>(session);
  request.prompt = session.prompt;
  request.system = session.system;

  const Interrupt interrupt;
  Progress spinner(Progress::Style::kQuiet);
  spinner.status("");
  AnswerPrinter printer(style_of(session), &spinner);
  api::Metrics metrics;
  const auto result =
      host.generate(request, interrupt.token(), [&](const api::GenerateResponse& response) {
        printer.add(response.thinking, response.response, response.tool_calls);
        if (response.done) metrics = response.metrics;
        return true;
      });
  spinner.stop_and_clear();
  printer.finish();
  if (!result && !interrupt.requested()) return fail(result);
  if (!session.prompt.empty()) finish_answer();
  if (result) print_summary(session, metrics);
  return {};
}

Result<> chat_once(ModelHost& host, Session& session) {
  auto request = make_request<api::ChatRequest>(session);
  request.messages = session.messages;

  const Interrupt interrupt;
  Progress spinner(Progress::Style::kQuiet);
  spinner.status("");
  AnswerPrinter printer(style_of(session), &spinner);
  api::Metrics metrics;
  const auto result = host.chat(request, interrupt.token(), [&](const api::ChatResponse& response) {
    printer.add(response.message.thinking, response.message.content, response.message.tool_calls);
    if (response.done) metrics = response.metrics;
    return true;
  });
  spinner.stop_and_clear();
  printer.finish();
  if (!result && !interrupt.requested()) return fail(result);
  finish_answer();
  if (!printer.content().empty() || result) {
    api::Message answer;
    answer.role = "assistant";
    answer.content = printer.content();
    answer.thinking = printer.thinking();
    session.messages.push_back(std::move(answer));
  }
  if (result) print_summary(session, metrics);
  return {};
}

bool has_capability(const api::ShowResponse& model, std::string_view capability) {
  return std::ranges::contains(model.capabilities, capability);
}

Result<> load_model(ModelHost& host, Session& session) {
  Progress spinner(Progress::Style::kQuiet);
  spinner.status("");
  api::ShowRequest show;
  show.model = session.model;
  const auto info = host.show(show);
  if (!info) {
    spinner.stop_and_clear();
    return fail(info);
  }
  session.parent_model = info->details.parent_model;
  if (!session.think_chosen) {
    session.think.reset();
    if (has_capability(*info, "thinking")) session.think = api::Think{.enabled = true, .level = {}};
  }
  api::GenerateRequest request;
  request.model = session.model;
  request.keep_alive = session.keep_alive;
  request.think = session.think;
  const auto loaded = host.load(request, [&](std::uint64_t completed, std::uint64_t total) {
    spinner.bar("load", "loading model", completed, total);
  });
  spinner.stop_and_clear();
  return loaded;
}

api::CreateRequest save_request(const Session& session, const std::string& name) {
  api::CreateRequest request;
  request.model = name;
  request.from = session.parent_model.empty() ? session.model : session.parent_model;
  request.system = session.system;
  request.parameters = session.options;
  request.messages = session.messages;
  return request;
}

}  // namespace ollama::cmd

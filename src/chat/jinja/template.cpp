#include "chat/jinja/template.h"

#include <algorithm>
#include <exception>
#include <new>
#include <stdexcept>

#include "chat/jinja/interpreter.h"
#include "chat/jinja/parser.h"

namespace ollama::chat {

Result<JinjaTemplate> JinjaTemplate::parse(std::string_view text) {
  if (text.size() > kMaxBytes) {
    return fail(ErrorCode::kInvalidArgument, "a template of {} bytes is too large: {} are allowed",
                text.size(), kMaxBytes);
  }
  try {
    return JinjaTemplate(jinja::parse_program(text));
  } catch (jinja::Failure& failure) {
    return std::unexpected(Error(failure.code, std::move(failure.message)));
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "no memory for parsing a template");
  }
}

Result<std::string> JinjaTemplate::render(const api::JsonObject& context,
                                          const JinjaOptions& options) const {
  try {
    jinja::Interpreter interpreter(*program_, context, options);
    try {
      return interpreter.run();
    } catch (const jinja::Failure& failure) {
      const jinja::Position at = interpreter.where();
      return fail(failure.code, "line {}, column {}: {}", at.line, at.column, failure.message);
    }
  } catch (const jinja::Failure& failure) {  // before it ran
    return std::unexpected(Error(failure.code, failure.message));
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "no memory for rendering a template");
  } catch (const std::length_error&) {
    return fail(ErrorCode::kOutOfMemory, "a text of a template is too long");
  }
}

bool JinjaTemplate::mentions(std::string_view name) const {
  return std::ranges::binary_search(program_->names, name);
}

}  // namespace ollama::chat

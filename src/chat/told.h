// Answers that were taken apart, as tests write them.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "api/types.h"
#include "chat/answer_parser.h"

namespace ollama::chat {

// "thinking=...|text=...|f{"a":1}|..."
inline std::string told(const AnswerPiece& answer) {
  std::string text;
  if (!answer.thinking.empty()) text += "thinking=" + answer.thinking + "|";
  if (!answer.text.empty()) text += "text=" + answer.text + "|";
  for (const api::ToolCall& call : answer.calls) {
    text += call.name + api::to_string(call.arguments) + "|";
  }
  return text;
}

// An answer that comes in pieces of that many bytes.
inline AnswerPiece parse_in_pieces(const AnswerFormat& format, std::string_view text,
                                   std::size_t piece, AnswerParser::Options options) {
  AnswerParser parser(format, std::move(options));
  AnswerPiece all;
  for (std::size_t i = 0; i < text.size(); i += piece) {
    all.append(parser.feed(text.substr(i, piece)));
  }
  all.append(parser.finish());
  return all;
}

}  // namespace ollama::chat

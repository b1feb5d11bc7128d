// Values as text: as Go's fmt prints them, and as its encoding/json writes them.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "chat/go/sink.h"
#include "chat/go/value.h"

namespace ollama::chat::go {

// As an action prints it: strings as they are, what is missing or nil as "<no value>".
void print_action(Sink& out, const Value& value);
// fmt's %v: nil is "<nil>", lists are [a b], maps map[k:v] in the order of their keys; what Ollama
// gives to templates as a type of its own (tools, arguments) is JSON.
void print_value(Sink& out, const Value& value);

// fmt.Sprint (blanks between neighbours that are not strings) and fmt.Sprintln.
void print_all(Sink& out, std::span<const Value> values);
void print_line(Sink& out, std::span<const Value> values);
// fmt.Sprintf. Errors: kInvalidArgument, a width or precision that is out of all proportion.
Result<> print_format(Sink& out, std::string_view format, std::span<const Value> values);

// Keys of maps in ascending order; <, > and & escaped.
void write_json(Sink& out, const Value& value);

// The members of a JSON object in ascending order of their names.
std::vector<const api::JsonObject::value_type*> sorted_members(const api::JsonObject& map);

}  // namespace ollama::chat::go

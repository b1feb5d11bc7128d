// Internal to convert: the files of a checkpoint, found by name, read with bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "base/error.h"
#include "base/unique_fd.h"
#include "convert/convert.h"

namespace ollama::convert {

// The largest published tokenizer has 35 MB.
inline constexpr std::uint64_t kMaxTextBytes = 64ULL << 20;

// A plain file, open for reading. Safe to use from several threads.
class InputFile {
 public:
  // Errors: kNotFound, kPermission, kIo; kInvalidArgument for what is no plain file.
  static Result<InputFile> open(const NamedFile& file);

  const std::string& name() const { return name_; }
  std::uint64_t size() const { return size_; }
  // Fills `out` from `offset`; kCorrupt when the file ends before. Not mapped: a file that shrinks
  // meanwhile is an error and not a signal, and what was read does not stay in memory.
  Result<> read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  InputFile(std::string name, UniqueFd fd, std::uint64_t size)
      : name_(std::move(name)), fd_(std::move(fd)), size_(size) {}

  std::string name_;
  UniqueFd fd_;
  std::uint64_t size_;
};

class Source {
 public:
  // Errors: kInvalidArgument (a name that is no plain file name, or one that comes twice).
  static Result<Source> create(std::span<const NamedFile> files);

  bool has(std::string_view name) const { return files_.contains(name); }
  std::vector<std::string_view> names() const;

  // Errors: kNotFound "config.json is missing", those of InputFile::open.
  Result<InputFile> open(std::string_view name) const;
  // The whole of a file that exists; kCorrupt when it is longer than kMaxTextBytes.
  Result<std::string> text(std::string_view name) const;
  // The file as a JSON object, empty where there is no such file. Errors: kCorrupt.
  Result<api::JsonObject> json(std::string_view name) const;

 private:
  std::map<std::string, std::filesystem::path, std::less<>> files_;
};

// Whether `name` can be that of a file in a folder: no path, nothing hidden in it.
bool is_plain_name(std::string_view name);

// ---- reading JSON of any shape ----

// The member, unless it is missing or null.
const api::Json* member(const api::JsonObject& object, std::string_view name);
// The members of these types; nullopt (empty, null) when there is none or it has another type.
std::optional<std::string_view> string_member(const api::JsonObject& object, std::string_view name);
std::optional<bool> bool_member(const api::JsonObject& object, std::string_view name);
std::optional<double> number_member(const api::JsonObject& object, std::string_view name);
const api::JsonObject* object_member(const api::JsonObject& object, std::string_view name);
const boost::json::array* array_member(const api::JsonObject& object, std::string_view name);
// A number without fraction that fits; JSON writes 3.0 for 3 at times.
std::optional<std::int64_t> integer_of(const api::Json& value);
std::optional<double> number_of(const api::Json& value);
std::string_view view_of(const boost::json::string& text);

}  // namespace ollama::convert

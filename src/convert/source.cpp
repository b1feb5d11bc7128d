#include "convert/source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cerrno>
#include <cmath>

#include "gguf/parse.h"

namespace ollama::convert {
namespace fs = std::filesystem;
namespace {

// Where sentence-transformers says how the states of tokens become an embedding.
constexpr std::string_view kPooling = "1_Pooling/config.json";

constexpr std::array<std::string_view, 12> kTextFiles{"added_tokens.json",
                                                      "chat_template.jinja",
                                                      "chat_template.json",
                                                      "config.json",
                                                      "generation_config.json",
                                                      "model.safetensors.index.json",
                                                      "special_tokens_map.json",
                                                      "tokenizer.json",
                                                      "tokenizer.model",
                                                      "tokenizer_config.json",
                                                      "vocab.txt",
                                                      kPooling};

constexpr std::array<std::string_view, 5> kPickles{".bin", ".pt", ".pth", ".ckpt", ".pkl"};

bool is_weights(std::string_view name) { return name.ends_with(".safetensors"); }

bool is_pickle(std::string_view name) {
  return std::ranges::any_of(kPickles, [&](std::string_view end) { return name.ends_with(end); });
}

// Whether `path`, whatever links it consists of, lies in `folder`, which is canonical.
bool lies_in(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path target = fs::canonical(path, error);
  if (error) return false;
  return std::ranges::mismatch(folder, target).in1 == folder.end();
}

}  // namespace

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

bool is_source_file(std::string_view name) {
  return std::ranges::contains(kTextFiles, name) || (is_plain_name(name) && is_weights(name));
}

Result<std::vector<NamedFile>> find_files(const fs::path& directory) {
  std::error_code error;
  const fs::path folder = fs::canonical(directory, error);
  if (error) return fail_errno(directory.string(), error.value());
  std::vector<NamedFile> files;
  bool weights = false;
  bool pickles = false;
  const auto add = [&](std::string name) -> Result<> {
    if (!is_source_file(name)) return {};
    if (!lies_in(folder / name, folder)) {
      return fail(ErrorCode::kPermission,
                  "{} is a link that leads out of its folder: copy the folder with its files "
                  "(cp -rL) and convert the copy",
                  gguf::printable(name));
    }
    weights |= is_weights(name);
    files.push_back({name, folder / name});
    return {};
  };
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    pickles |= is_pickle(name);
    OLLAMA_TRY(add(name));
  }
  if (error) return fail_errno(directory.string(), error.value());
  if (fs::exists(folder / kPooling, error)) OLLAMA_TRY(add(std::string(kPooling)));
  if (!weights && pickles) {
    return fail(ErrorCode::kUnsupported,
                "the weights are in PyTorch's own format, which can run code when it is read: save "
                "them as safetensors");
  }
  if (!weights) {
    return fail(ErrorCode::kNotFound, "{} has no weights (*.safetensors)", directory.string());
  }
  std::ranges::sort(files, {}, &NamedFile::name);
  return files;
}

Result<InputFile> InputFile::open(const NamedFile& file) {
  // Not blocking: a pipe has no writer perhaps.
  UniqueFd fd(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status{};
  if (!fd || ::fstat(fd.get(), &status) != 0) return fail_errno(file.name, errno);
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kInvalidArgument, "{} is no plain file", gguf::printable(file.name));
  }
  return InputFile(file.name, std::move(fd), static_cast<std::uint64_t>(status.st_size));
}

Result<> InputFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t done = ::pread(fd_.get(), out.data(), out.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return fail_errno(name_, errno);
    if (done == 0) return fail(ErrorCode::kCorrupt, "{} ends too early", gguf::printable(name_));
    out = out.subspan(static_cast<std::size_t>(done));
    offset += static_cast<std::uint64_t>(done);
  }
  return {};
}

Result<Source> Source::create(std::span<const NamedFile> files) {
  Source source;
  bool weights = false;
  bool pickles = false;
  for (const NamedFile& file : files) {
    if (!is_plain_name(file.name) && file.name != kPooling) {
      return fail(ErrorCode::kInvalidArgument, "'{}' is no plain file name",
                  gguf::printable(file.name));
    }
    pickles |= is_pickle(file.name);
    weights |= is_weights(file.name);
    if (!is_source_file(file.name)) continue;
    if (!source.files_.emplace(file.name, file.path).second) {
      return fail(ErrorCode::kInvalidArgument, "there are two files named {}",
                  gguf::printable(file.name));
    }
  }
  if (!weights && pickles) {
    return fail(ErrorCode::kUnsupported,
                "the weights are in PyTorch's own format, which can run code when it is read: save "
                "them as safetensors");
  }
  return source;
}

std::vector<std::string_view> Source::names() const {
  std::vector<std::string_view> names;
  for (const auto& [name, path] : files_) names.emplace_back(name);
  return names;
}

Result<InputFile> Source::open(std::string_view name) const {
  const auto found = files_.find(name);
  if (found == files_.end()) {
    return fail(ErrorCode::kNotFound, "{} is missing", gguf::printable(name));
  }
  return InputFile::open({.name = found->first, .path = found->second});
}

Result<std::string> Source::text(std::string_view name) const {
  OLLAMA_ASSIGN(const InputFile file, open(name));
  if (file.size() > kMaxTextBytes) {
    return fail(ErrorCode::kCorrupt, "{} has {} bytes, more than any such file needs", name,
                file.size());
  }
  std::string text(file.size(), '\0');
  OLLAMA_TRY(file.read(0, std::as_writable_bytes(std::span(text))));
  return text;
}

Result<api::JsonObject> Source::json(std::string_view name) const {
  if (!has(name)) return api::JsonObject();
  OLLAMA_ASSIGN(const std::string content, text(name));
  auto json = api::parse_json(content);
  if (!json) return fail(ErrorCode::kCorrupt, "{}: {}", name, json.error().message());
  auto* object = json->if_object();
  if (object == nullptr) return fail(ErrorCode::kCorrupt, "{}: expected a JSON object", name);
  return std::move(*object);
}

const api::Json* member(const api::JsonObject& object, std::string_view name) {
  const api::Json* value = object.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::optional<std::string_view> string_member(const api::JsonObject& object,
                                              std::string_view name) {
  const api::Json* value = member(object, name);
  const auto* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::nullopt : std::optional(view_of(*text));
}

std::optional<bool> bool_member(const api::JsonObject& object, std::string_view name) {
  const api::Json* value = member(object, name);
  const bool* flag = value == nullptr ? nullptr : value->if_bool();
  return flag == nullptr ? std::nullopt : std::optional(*flag);
}

std::optional<double> number_member(const api::JsonObject& object, std::string_view name) {
  const api::Json* value = member(object, name);
  return value == nullptr ? std::nullopt : number_of(*value);
}

const api::JsonObject* object_member(const api::JsonObject& object, std::string_view name) {
  const api::Json* value = member(object, name);
  return value == nullptr ? nullptr : value->if_object();
}

const boost::json::array* array_member(const api::JsonObject& object, std::string_view name) {
  const api::Json* value = member(object, name);
  return value == nullptr ? nullptr : value->if_array();
}

std::optional<double> number_of(const api::Json& value) {
  if (const auto* number = value.if_int64()) return static_cast<double>(*number);
  if (const auto* number = value.if_uint64()) return static_cast<double>(*number);
  if (const auto* number = value.if_double()) return *number;
  return std::nullopt;
}

std::optional<std::int64_t> integer_of(const api::Json& value) {
  if (const auto* number = value.if_int64()) return *number;
  constexpr double kExact = 9007199254740992.0;  // from here on doubles skip integers
  if (const auto* number = value.if_double()) {
    if (std::abs(*number) < kExact && std::trunc(*number) == *number) {
      return static_cast<std::int64_t>(*number);
    }
  }
  return std::nullopt;
}

std::string_view view_of(const boost::json::string& text) { return {text.data(), text.size()}; }

}  // namespace ollama::convert

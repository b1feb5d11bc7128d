// SHA-256, and digests as Ollama writes them: "sha256:" and 64 hexadecimal digits.
#pragma once

#include <compare>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace ollama::store {

// A valid digest: only parse() and Sha256 make one, so that it is safe as part of a path.
class Digest {
 public:
  // "sha256:HEX" or "sha256-HEX", digits of either case. kInvalidArgument otherwise.
  static Result<Digest> parse(std::string_view text);

  const std::string& hex() const { return hex_; }  // 64 small digits
  std::string text() const { return "sha256:" + hex_; }
  std::string file_name() const { return "sha256-" + hex_; }

  auto operator<=>(const Digest&) const = default;

 private:
  friend class Sha256;
  explicit Digest(std::string hex) : hex_(std::move(hex)) {}
  std::string hex_;
};

class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void update(std::span<const std::byte> bytes);
  void update(std::string_view bytes);
  // The digest of everything so far; call it once.
  Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest digest_of(std::string_view bytes);
// Reads the whole file. Errors: those of reading it.
Result<Digest> digest_of_file(const std::filesystem::path& path);

}  // namespace ollama::store

// The key that registries know this user by: ~/.ollama/id_ed25519, an Ed25519 key in OpenSSH's
// format, the same file that Ollama uses.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"

namespace ollama::store {

class Key {
 public:
  // The key in `folder`; made when there is none, readable by its owner only, with the public half
  // beside it (id_ed25519.pub). Errors: those of the files; kCorrupt, kUnsupported (another kind of
  // key, or one with a passphrase).
  static Result<Key> load_or_create(const std::filesystem::path& folder);
  // A key from the text of its file.
  static Result<Key> parse(std::string_view text);
  static Result<Key> generate();

  // The private key's file: "-----BEGIN OPENSSH PRIVATE KEY-----" ...
  std::string private_text() const;
  // "ssh-ed25519 AAAA...".
  std::string public_text() const;
  // "PUBLIC:SIGNATURE", both in base64: what the Authorization header of a request for a token is.
  Result<std::string> authorization(std::string_view signed_text) const;
  // The 64 bytes.
  Result<std::string> sign(std::string_view text) const;

 private:
  using Bytes = std::array<unsigned char, 32>;
  Key() = default;
  static Result<Key> from_seed(std::string_view seed);
  std::string public_blob() const;

  Bytes seed_{};
  Bytes public_{};
};

}  // namespace ollama::store

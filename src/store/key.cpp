#include "store/key.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "api/types.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "store/files.h"

namespace ollama::store {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kKeyFile = "id_ed25519";
constexpr std::string_view kKeyType = "ssh-ed25519";
constexpr std::string_view kKeyBegin = "-----BEGIN OPENSSH PRIVATE KEY-----";
constexpr std::string_view kKeyEnd = "-----END OPENSSH PRIVATE KEY-----";
constexpr std::string_view kKeyMagic{"openssh-key-v1\0", 15};
constexpr std::size_t kMaxKeyFile = 64 << 10;
constexpr std::size_t kKeyLine = 70;  // characters of base64
constexpr std::size_t kKeyBlock = 8;  // what the private part is padded to, without a cipher
constexpr std::size_t kKeyHalf = 32;  // bytes of a seed, and of a public key

using EvpKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

// ---- The fields of OpenSSH's format: big-endian 32-bit numbers, texts after their length.

void put_number(std::string& out, std::uint32_t value) {
  for (const unsigned shift : {24U, 16U, 8U, 0U}) {
    out += static_cast<char>(static_cast<unsigned char>(value >> shift));
  }
}
void put_text(std::string& out, std::string_view text) {
  put_number(out, static_cast<std::uint32_t>(text.size()));
  out += text;
}

std::optional<std::uint32_t> take_number(std::string_view& in) {
  if (in.size() < 4) return std::nullopt;
  std::uint32_t value = 0;
  for (const char c : in.substr(0, 4)) value = value << 8U | static_cast<unsigned char>(c);
  in.remove_prefix(4);
  return value;
}
std::optional<std::string_view> take_text(std::string_view& in) {
  const auto size = take_number(in);
  if (!size || *size > in.size()) return std::nullopt;
  const std::string_view text = in.substr(0, *size);
  in.remove_prefix(*size);
  return text;
}

std::unexpected<Error> not_a_key() {
  return fail(ErrorCode::kCorrupt, "it is not a private key in OpenSSH's format");
}

std::string_view chars_of(const auto& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Gives `path`, readable by its owner only, this content unless it exists; complete or not at all.
Result<> write_new_key(const fs::path& path, std::string_view text) {
  OLLAMA_TRY(make_folder(path.parent_path()));
  std::string temporary = path.string() + ".XXXXXX";
  const UniqueFd file(::mkostemp(temporary.data(), O_CLOEXEC));  // with mode 0600
  if (!file) return fail_errno(path.string(), errno);
  int error = 0;
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::fsync(file.get()) != 0 || ::link(temporary.c_str(), path.c_str()) != 0) {
    error = errno;
  }
  ::unlink(temporary.c_str());
  if (error != 0) return fail_errno(path.string(), error);
  return {};
}

}  // namespace

Result<Key> Key::from_seed(std::string_view seed) {
  Key key;
  std::ranges::copy(seed.substr(0, kKeyHalf), key.seed_.begin());
  const EvpKey pair(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, key.seed_.data(), key.seed_.size()),
      &EVP_PKEY_free);
  std::size_t size = key.public_.size();
  if (!pair || EVP_PKEY_get_raw_public_key(pair.get(), key.public_.data(), &size) != 1) {
    return fail(ErrorCode::kInternal, "OpenSSL refuses the Ed25519 key");
  }
  return key;
}

Result<Key> Key::generate() {
  Bytes seed{};
  if (RAND_bytes(seed.data(), static_cast<int>(seed.size())) != 1) {
    return fail(ErrorCode::kInternal, "no random numbers");
  }
  return from_seed(chars_of(seed));
}

std::string Key::public_blob() const {
  std::string blob;
  put_text(blob, kKeyType);
  put_text(blob, chars_of(public_));
  return blob;
}

std::string Key::public_text() const {
  return std::format("{} {}", kKeyType, api::encode_base64(public_blob()));
}

std::string Key::private_text() const {
  std::string secret;
  std::uint32_t check = 0;  // the same number twice: whoever decrypts sees that it worked
  RAND_bytes(reinterpret_cast<unsigned char*>(&check), sizeof check);
  put_number(secret, check);
  put_number(secret, check);
  secret += public_blob();
  put_text(secret, std::string(chars_of(seed_)) + std::string(chars_of(public_)));
  put_text(secret, "");  // comment
  for (char pad = 1; secret.size() % kKeyBlock != 0; ++pad) secret += pad;

  std::string blob(kKeyMagic);
  put_text(blob, "none");  // cipher
  put_text(blob, "none");  // key derivation
  put_text(blob, "");
  put_number(blob, 1);
  put_text(blob, public_blob());
  put_text(blob, secret);

  const std::string base64 = api::encode_base64(blob);
  std::string text = std::format("{}\n", kKeyBegin);
  for (std::size_t at = 0; at < base64.size(); at += kKeyLine) {
    text += std::format("{}\n", std::string_view(base64).substr(at, kKeyLine));
  }
  return text + std::format("{}\n", kKeyEnd);
}

Result<Key> Key::parse(std::string_view text) {
  const auto begin = text.find(kKeyBegin);
  if (begin == std::string_view::npos) return not_a_key();
  text.remove_prefix(begin + kKeyBegin.size());
  const auto end = text.find(kKeyEnd);
  if (end == std::string_view::npos) return not_a_key();
  const auto decoded = api::decode_base64(text.substr(0, end));
  if (!decoded || !decoded->starts_with(kKeyMagic)) return not_a_key();

  std::string_view rest = std::string_view(*decoded).substr(kKeyMagic.size());
  const auto cipher = take_text(rest);
  const auto derivation = take_text(rest);
  const auto derivation_options = take_text(rest);
  const auto count = take_number(rest);
  if (!cipher || !derivation || !derivation_options || count != 1U) return not_a_key();
  if (*cipher != "none") {
    return fail(ErrorCode::kUnsupported, "it has a passphrase, which is not supported");
  }
  const auto public_part = take_text(rest);
  auto secret = take_text(rest);
  if (!public_part || !secret) return not_a_key();
  const auto check = take_number(*secret);
  const auto check_again = take_number(*secret);
  const auto type = take_text(*secret);
  if (!check || check != check_again || !type) return not_a_key();
  if (*type != kKeyType) {
    return fail(ErrorCode::kUnsupported, "it is a key of type {}; {} is needed", *type, kKeyType);
  }
  const auto public_key = take_text(*secret);
  const auto pair = take_text(*secret);
  if (!public_key || !pair || pair->size() != 2 * kKeyHalf) return not_a_key();
  OLLAMA_ASSIGN(Key key, from_seed(*pair));
  if (chars_of(key.public_) != *public_key) return not_a_key();
  return key;
}

Result<Key> Key::load_or_create(const fs::path& folder) {
  const fs::path path = folder / kKeyFile;
  auto text = read_file(path, kMaxKeyFile);
  if (!text && text.error().code() == ErrorCode::kNotFound) {
    OLLAMA_ASSIGN(const Key key, generate());
    const auto written = write_new_key(path, key.private_text());
    if (!written && written.error().code() != ErrorCode::kAlreadyExists) return fail(written);
    if (written) {
      const auto public_path = path.string() + ".pub";
      if (const auto result = write_file(public_path, key.public_text() + "\n"); !result) {
        log::warn("{}: {}", public_path, result.error().message());
      }
      return key;
    }
    text = read_file(path, kMaxKeyFile);  // another process was faster
  }
  if (!text) return fail(std::move(text));
  auto key = parse(*text);
  if (!key) return std::unexpected(key.error().with_context(path.string()));
  return key;
}

Result<std::string> Key::sign(std::string_view text) const {
  const EvpKey pair(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed_.data(), seed_.size()),
      &EVP_PKEY_free);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  std::string signature(64, '\0');
  std::size_t size = signature.size();
  const bool done =
      pair && context &&
      EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, pair.get()) == 1 &&
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     reinterpret_cast<const unsigned char*>(text.data()), text.size()) == 1;
  if (!done || size != signature.size()) return fail(ErrorCode::kInternal, "OpenSSL cannot sign");
  return signature;
}

Result<std::string> Key::authorization(std::string_view signed_text) const {
  OLLAMA_ASSIGN(const std::string signature, sign(signed_text));
  return std::format("{}:{}", api::encode_base64(public_blob()), api::encode_base64(signature));
}

}  // namespace ollama::store

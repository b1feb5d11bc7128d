// Sizes for people, and numbers read strictly.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace ollama {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

// Decimal units as `ollama list` prints them: "535 KB", "4.7 GB", "1 MB" for exactly that.
std::string human_bytes(std::uint64_t bytes);
// Binary units: "457.0 MiB".
std::string human_bytes_binary(std::uint64_t bytes);
// Parameter counts as Ollama prints them: "260K", "596.05M", "1.2B".
std::string human_number(std::uint64_t count);

// The whole of `text` as a number of type T; nullopt on anything else (blanks, signs of unsigned
// types, overflow, trailing text).
template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace ollama

#include "base/units.h"

#include <cmath>
#include <format>

namespace ollama {
namespace {

// From ten on whole units; below that one decimal, unless the value is whole.
std::string with_unit(double value, std::string_view unit) {
  if (value >= 10 || value == std::floor(value)) {
    return std::format("{:.0f} {}", std::floor(value), unit);
  }
  return std::format("{:.1f} {}", value, unit);
}

}  // namespace

std::string human_bytes(std::uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 1e12) return with_unit(value / 1e12, "TB");
  if (value >= 1e9) return with_unit(value / 1e9, "GB");
  if (value >= 1e6) return with_unit(value / 1e6, "MB");
  if (value >= 1e3) return with_unit(value / 1e3, "KB");
  return std::format("{} B", bytes);
}

std::string human_bytes_binary(std::uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= kGiB) return std::format("{:.1f} GiB", value / static_cast<double>(kGiB));
  if (bytes >= kMiB) return std::format("{:.1f} MiB", value / static_cast<double>(kMiB));
  if (bytes >= kKiB) return std::format("{:.1f} KiB", value / static_cast<double>(kKiB));
  return std::format("{} B", bytes);
}

std::string human_number(std::uint64_t count) {
  const auto scaled = [count](double divisor, int decimals, std::string_view suffix) {
    const double value = static_cast<double>(count) / divisor;
    return std::format("{:.{}f}{}", value, value == std::floor(value) ? 0 : decimals, suffix);
  };
  if (count >= 1'000'000'000) return scaled(1e9, 1, "B");
  if (count >= 1'000'000) return scaled(1e6, 2, "M");
  if (count >= 1'000) return scaled(1e3, 0, "K");
  return std::to_string(count);
}

}  // namespace ollama

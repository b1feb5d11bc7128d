// Flag values with limits.
#pragma once

#include <cstdint>
#include <format>
#include <string_view>

#include "cmd/command.h"
#include "ml/backend.h"
#include "ml/dtype.h"

namespace ollama::cmd {

// kInvalidArgument when the flag's number is outside [min, max].
inline Result<std::uint32_t> checked_number(const Arguments& arguments, std::string_view flag,
                                            std::int64_t min, std::int64_t max) {
  const std::int64_t value = arguments.number(flag);
  if (value < min || value > max) {
    return fail(ErrorCode::kInvalidArgument, "--{} must be from {} to {}", flag, min, max);
  }
  return static_cast<std::uint32_t>(value);
}

// The flag's type of the KV cache.
inline Result<ml::DType> checked_kv_type(const Arguments& arguments, std::string_view flag) {
  const auto type = ml::parse_dtype(arguments.text(flag));
  if (type == ml::DType::kF32 || type == ml::DType::kF16 || type == ml::DType::kBF16 ||
      type == ml::DType::kQ8_0 || type == ml::DType::kQ4_0) {
    return *type;
  }
  return fail(ErrorCode::kInvalidArgument, "--{} must be f32, f16, bf16, q8_0 or q4_0", flag);
}

inline Result<ml::FlashAttention> checked_flash_attention(const Arguments& arguments,
                                                          std::string_view flag) {
  const std::string& text = arguments.text(flag);
  if (text == "auto") return ml::FlashAttention::kAuto;
  if (text == "on") return ml::FlashAttention::kOn;
  if (text == "off") return ml::FlashAttention::kOff;
  return fail(ErrorCode::kInvalidArgument, "--{} must be on, off or auto", flag);
}

}  // namespace ollama::cmd

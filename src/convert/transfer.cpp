#include "convert/transfer.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace ollama::convert {
namespace {

// Large enough that the calls do not count, small enough for the second-level cache.
constexpr std::size_t kPieceBytes = 1U << 20;

class Transfer {
 public:
  Transfer(const Checkpoint& checkpoint, gguf::Writer& writer, const Progress& progress)
      : checkpoint_(checkpoint), writer_(writer), progress_(progress) {}

  Result<> copy(std::size_t index, const Move& move) {
    if (move.from == nullptr) return emit(index, 0, std::as_bytes(std::span(move.values)));
    if (move.turned_head > 0) return turn(index, move);
    if (move.type != move.stored || move.plus_one) return convert(index, move);
    const std::uint64_t size = move.from->size - move.skip;
    for (std::uint64_t at = 0; at < size;) {
      const std::size_t length = std::min<std::uint64_t>(kPieceBytes, size - at);
      const std::span piece = input(length);
      OLLAMA_TRY(checkpoint_.read(*move.from, move.skip + at, piece));
      OLLAMA_TRY(emit(index, at, piece));
      at += length;
    }
    return {};
  }

 private:
  std::span<std::byte> input(std::size_t size) {
    if (input_.size() < size) input_.resize(size);
    return std::span(input_).first(size);
  }
  std::span<std::byte> output(std::size_t size) {
    if (output_.size() < size) output_.resize(size);
    return std::span(output_).first(size);
  }

  Result<> emit(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes) {
    OLLAMA_TRY(writer_.write(index, offset, bytes));
    done_ += bytes.size();
    if (progress_ && !progress_(done_, writer_.data_size())) {
      return fail(ErrorCode::kCancelled, "cancelled");
    }
    return {};
  }

  // To f32, and plus one where the norm wants it.
  Result<> convert(std::size_t index, const Move& move) {
    const std::size_t width = ggml_type_size(move.stored);
    const std::uint64_t count = (move.from->size - move.skip) / width;
    for (std::uint64_t at = 0; at < count;) {
      const std::size_t length = std::min<std::uint64_t>(kPieceBytes / sizeof(float), count - at);
      const std::span piece = input(length * width);
      OLLAMA_TRY(checkpoint_.read(*move.from, move.skip + at * width, piece));
      floats_.resize(length);
      to_floats(move.stored, piece);
      if (move.plus_one) {
        for (float& value : floats_) value += 1.0F;
      }
      OLLAMA_TRY(emit(index, at * sizeof(float), std::as_bytes(std::span(floats_))));
      at += length;
    }
    return {};
  }

  void to_floats(ggml_type type, std::span<const std::byte> bytes) {
    const auto count = std::ssize(floats_);
    switch (type) {
      case GGML_TYPE_F16:
        return ggml_fp16_to_fp32_row(reinterpret_cast<const ggml_fp16_t*>(bytes.data()),
                                     floats_.data(), count);
      case GGML_TYPE_BF16:
        return ggml_bf16_to_fp32_row(reinterpret_cast<const ggml_bf16_t*>(bytes.data()),
                                     floats_.data(), count);
      default:
        std::memcpy(floats_.data(), bytes.data(), bytes.size());
    }
  }

  // Rows of each head: one of the first half, one of the second, and so on. Of a bias, elements.
  Result<> turn(std::size_t index, const Move& move) {
    const bool is_vector = move.rows == 0;
    const std::int64_t rows = is_vector ? move.columns : move.rows;
    const std::size_t row = move.from->size / static_cast<std::uint64_t>(rows);
    const auto half = static_cast<std::size_t>(move.turned_head) / 2;
    const std::size_t step = std::clamp<std::size_t>(kPieceBytes / row / 2, 1, half);
    const auto heads = static_cast<std::size_t>(rows) / (2 * half);
    for (std::size_t head = 0; head < heads; ++head) {
      for (std::size_t i = 0; i < half; i += step) {
        const std::size_t count = std::min(step, half - i);
        const std::span piece = input(2 * count * row);
        const std::uint64_t first = head * 2 * half + i;
        OLLAMA_TRY(checkpoint_.read(*move.from, first * row, piece.first(count * row)));
        OLLAMA_TRY(checkpoint_.read(*move.from, (first + half) * row, piece.last(count * row)));
        const std::span mixed = output(piece.size());
        for (std::size_t k = 0; k < count; ++k) {
          std::memcpy(&mixed[2 * k * row], &piece[k * row], row);
          std::memcpy(&mixed[(2 * k + 1) * row], &piece[(count + k) * row], row);
        }
        const std::uint64_t place = head * 2 * half + 2 * i;
        OLLAMA_TRY(emit_turned(index, move, place, row, mixed));
      }
    }
    return {};
  }

  Result<> emit_turned(std::size_t index, const Move& move, std::uint64_t place, std::size_t row,
                       std::span<const std::byte> mixed) {
    if (move.type == move.stored) return emit(index, place * row, mixed);
    floats_.resize(mixed.size() / ggml_type_size(move.stored));
    to_floats(move.stored, mixed);
    return emit(index, place * sizeof(float), std::as_bytes(std::span(floats_)));
  }

  const Checkpoint& checkpoint_;
  gguf::Writer& writer_;
  const Progress& progress_;
  std::uint64_t done_ = 0;
  std::vector<std::byte> input_, output_;
  std::vector<float> floats_;
};

}  // namespace

Result<> transfer(const Checkpoint& checkpoint, std::span<const Move> moves, gguf::Writer& writer,
                  const Progress& progress) {
  Transfer work(checkpoint, writer, progress);
  for (std::size_t i = 0; i < moves.size(); ++i) OLLAMA_TRY(work.copy(i, moves[i]));
  return {};
}

}  // namespace ollama::convert

#include "cmd/table.h"

#include <algorithm>
#include <string_view>

#include "cmd/terminal.h"

namespace ollama::cmd {
namespace {

constexpr std::string_view kPadding = "    ";

using Lines = std::vector<std::string>;

// The lines of a cell: its own, and those that wrapping at blanks makes.
Lines wrap_cell(std::string_view text, std::size_t limit) {
  Lines lines;
  while (true) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (display_width(line) <= limit) {
      lines.emplace_back(line);
    } else {
      std::string current;
      std::size_t width = 0;
      while (!line.empty()) {
        const std::size_t begin = line.find_first_not_of(' ');
        if (begin == std::string_view::npos) break;
        const std::size_t stop = std::min(line.find(' ', begin), line.size());
        const std::string_view word = line.substr(begin, stop - begin);
        const std::size_t word_width = display_width(word);
        if (width > 0 && width + 1 + word_width > limit) {
          lines.push_back(std::move(current));
          current.clear();
          width = 0;
        }
        if (width > 0) current += ' ';
        current += word;
        width += word_width + (width > 0 ? 1 : 0);
        line.remove_prefix(stop);
      }
      lines.push_back(std::move(current));
    }
    if (end == std::string_view::npos) return lines;
    text.remove_prefix(end + 1);
  }
}

void append_padded(std::string& out, std::string_view text, std::size_t width) {
  out += text;
  out.append(width - std::min(width, display_width(text)), ' ');
}

}  // namespace

std::string format_table(const Row& header, const std::vector<Row>& rows, TableOptions options) {
  std::vector<std::vector<Lines>> cells;
  std::vector<std::size_t> widths(header.size());
  for (std::size_t i = 0; i < header.size(); ++i) widths[i] = display_width(header[i]);
  for (const Row& row : rows) {
    std::vector<Lines>& line = cells.emplace_back();
    if (widths.size() < row.size()) widths.resize(row.size());
    for (std::size_t i = 0; i < row.size(); ++i) {
      line.push_back(wrap_cell(row[i], options.max_cell));
      for (const std::string& part : line.back()) {
        widths[i] = std::max(widths[i], display_width(part));
      }
    }
  }

  std::string out;
  for (std::size_t i = 0; i < header.size(); ++i) {
    append_padded(out, header[i], widths[i]);
    out += i + 1 < header.size() ? kPadding : " ";
  }
  if (!header.empty()) out += '\n';
  for (const std::vector<Lines>& row : cells) {
    std::size_t height = 0;
    for (const Lines& cell : row) height = std::max(height, cell.size());
    for (std::size_t y = 0; y < height; ++y) {
      for (std::size_t i = 0; i < row.size(); ++i) {
        append_padded(out, y < row[i].size() ? std::string_view(row[i][y]) : "", widths[i]);
        out += kPadding;
      }
      out += '\n';
    }
  }
  return out;
}

}  // namespace ollama::cmd

// Tables as Ollama prints them: columns padded to their widest cell, four blanks after each, no
// lines.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace ollama::cmd {

using Row = std::vector<std::string>;

struct TableOptions {
  // Cells wider than this are wrapped at blanks.
  std::size_t max_cell = 30;
};

// The header is left out when it is empty. Rows may have fewer cells than others.
std::string format_table(const Row& header, const std::vector<Row>& rows,
                         TableOptions options = {});

}  // namespace ollama::cmd

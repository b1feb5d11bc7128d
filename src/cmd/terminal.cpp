#include "cmd/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>

namespace ollama::cmd {

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

std::optional<std::size_t> terminal_columns(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return std::nullopt;
  return size.ws_col;
}

Character take_character(std::string_view& text) {
  utf8proc_int32_t code_point = 0;
  const utf8proc_ssize_t used =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(text.size()), &code_point);
  const std::size_t length = used > 0 ? static_cast<std::size_t>(used) : 1;
  Character character{.code_point = used > 0 ? static_cast<char32_t>(code_point) : U'�',
                      .bytes = text.substr(0, length),
                      .width = 1};
  if (used > 0) {
    character.width = static_cast<std::size_t>(std::max(0, utf8proc_charwidth(code_point)));
  }
  text.remove_prefix(length);
  return character;
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) width += take_character(text).width;
  return width;
}

std::string_view fit_width(std::string_view text, std::size_t columns) {
  std::string_view rest = text;
  std::size_t width = 0;
  std::size_t taken = 0;
  while (!rest.empty()) {
    const Character character = take_character(rest);
    width += character.width;
    if (width > columns) break;
    taken += character.bytes.size();
  }
  return text.substr(0, taken);
}

std::size_t unfinished_bytes(std::string_view text) {
  const std::size_t reach = std::min<std::size_t>(3, text.size());
  for (std::size_t back = 1; back <= reach; ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) return 0;
    if (byte >= 0xC0) {
      const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
      return length > back ? back : 0;
    }
  }
  return 0;
}

bool is_printable(char32_t code_point) {
  if (code_point == U'\n' || code_point == U'\t') return true;
  return code_point >= 0x20 && code_point != 0x7F && !(code_point >= 0x80 && code_point < 0xA0);
}

}  // namespace ollama::cmd

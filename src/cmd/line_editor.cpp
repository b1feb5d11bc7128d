#include "cmd/line_editor.h"

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <format>

#include "cmd/terminal.h"

namespace ollama::cmd {
namespace {

constexpr std::string_view kPasteOn = "\x1b[?2004h";
constexpr std::string_view kPasteOff = "\x1b[?2004l";

// What signals said while a line was read; handlers reach nothing but globals.
std::atomic<bool> resized = false;
std::atomic<bool> hung_up = false;

void on_resize(int /*number*/) { resized = true; }
void on_hang_up(int /*number*/) { hung_up = true; }

// Handles a signal without restarting the read it interrupts; gives it back at the end.
class ScopedSignal {
 public:
  ScopedSignal(int number, void (*handler)(int)) : number_(number) {
    struct sigaction action{};
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    ::sigaction(number, &action, &previous_);
  }
  ~ScopedSignal() { ::sigaction(number_, &previous_, nullptr); }
  ScopedSignal(const ScopedSignal&) = delete;
  ScopedSignal& operator=(const ScopedSignal&) = delete;

 private:
  int number_;
  struct sigaction previous_{};
};

void write_out(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// libedit draws what the locale can say. Text is UTF-8 here whatever the environment means by it.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::string_view(::nl_langinfo(CODESET)) != "UTF-8") std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

struct LineEditor::State {
  struct EndEditor {
    void operator()(EditLine* editor) const { el_end(editor); }
  };
  struct EndHistory {
    void operator()(::History* history) const { history_end(history); }
  };

  std::unique_ptr<::History, EndHistory> history;
  std::unique_ptr<EditLine, EndEditor> editor;  // uses the history: goes first
  std::string prompt;
  std::string placeholder;
  bool pasting = false;
  Kind ending = Kind::kLine;  // why the line was ended by something else than Enter

  static State& of(EditLine* editor) {
    void* data = nullptr;
    el_get(editor, EL_CLIENTDATA, &data);
    return *static_cast<State*>(data);
  }

  static char* get_prompt(EditLine* editor) { return of(editor).prompt.data(); }

  // ---- Keys. Each returns what libedit is to do next.

  // The line is ended as by Enter, so that the cursor leaves it behind; `ending` says what it was.
  static unsigned char end_line(EditLine* editor, Kind ending) {
    of(editor).ending = ending;
    el_push(editor, "\n");
    return CC_NORM;
  }
  static unsigned char interrupt(EditLine* editor, wint_t /*key*/) {
    return end_line(editor, Kind::kInterrupt);
  }
  static unsigned char edit(EditLine* editor, wint_t /*key*/) {
    return end_line(editor, Kind::kEdit);
  }
  static unsigned char begin_paste(EditLine* editor, wint_t /*key*/) {
    of(editor).pasting = true;
    return CC_NORM;
  }
  static unsigned char end_paste(EditLine* editor, wint_t /*key*/) {
    of(editor).pasting = false;
    return CC_NORM;
  }
  static unsigned char suspend(EditLine* editor, wint_t /*key*/) {
    write_out(kPasteOff);
    el_set(editor, EL_PREP_TERM, 0);
    ::kill(0, SIGTSTP);  // goes on here
    el_set(editor, EL_PREP_TERM, 1);
    write_out(kPasteOn);
    return CC_REDISPLAY;
  }

  // ---- Reading

  bool show_placeholder() const {
    const LineInfo* line = el_line(editor.get());
    if (placeholder.empty() || pasting || line->lastchar != line->buffer) return false;
    pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (::poll(&input, 1, 0) > 0) return false;
    const std::size_t width = display_width(placeholder);
    if (terminal_columns(STDOUT_FILENO).value_or(0) <= display_width(prompt) + width) return false;
    write_out(std::format("{}{}{}\x1b[{}D", kGrey, placeholder, kPlain, width));
    return true;
  }

  // 1 and a byte, or 0 at the end.
  int read_byte(unsigned char& byte) {
    while (true) {
      if (hung_up) return 0;
      if (resized.exchange(false)) el_resize(editor.get());
      const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
      if (got == 1) return 1;
      if (got == 0 || errno != EINTR) return 0;
    }
  }

  static int get_character(EditLine* editor, wchar_t* out) {
    State& state = of(editor);
    const bool shown = state.show_placeholder();
    unsigned char first = 0;
    const int got = state.read_byte(first);
    if (shown) write_out(kClearToEnd);
    if (got == 0) return 0;
    std::string bytes(1, static_cast<char>(first));
    while (unfinished_bytes(bytes) == bytes.size()) {
      unsigned char next = 0;
      if (state.read_byte(next) == 0) return 0;
      bytes += static_cast<char>(next);
    }
    std::string_view text = bytes;
    *out = static_cast<wchar_t>(take_character(text).code_point);
    return 1;
  }

  void bind(const wchar_t* key, const wchar_t* command) const {
    el_wset(editor.get(), EL_BIND, key, command, nullptr);
  }
  using Function = unsigned char (*)(EditLine*, wint_t);
  void bind(const wchar_t* key, const wchar_t* name, const wchar_t* help, Function function) const {
    el_wset(editor.get(), EL_ADDFN, name, help, function);
    bind(key, name);
  }

  void set_up() {
    EditLine* el = editor.get();
    el_set(el, EL_CLIENTDATA, this);
    el_set(el, EL_PROMPT, &State::get_prompt);
    el_set(el, EL_GETCFN, &State::get_character);
    el_set(el, EL_EDITOR, "emacs");
    el_set(el, EL_HIST, ::history, history.get());
    // Keys are keys while a line is edited, Ctrl-C too. What is typed while an answer is printed
    // does not show in the middle of it but in the next line.
    el_set(el, EL_SETTY, "-d", "-isig", nullptr);
    el_set(el, EL_SETTY, "-x", "-echo", nullptr);
    bind(L"^C", L"ollama-interrupt", L"Leave this line", &State::interrupt);
    bind(L"^G", L"ollama-edit", L"Finish this line in an editor", &State::edit);
    bind(L"^Z", L"ollama-suspend", L"Stop the program", &State::suspend);
    bind(L"\033[200~", L"ollama-begin-paste", L"A paste begins", &State::begin_paste);
    bind(L"\033[201~", L"ollama-end-paste", L"A paste ends", &State::end_paste);
    bind(L"\t", L"ed-insert");
    bind(L"^R", L"em-inc-search-prev");
    bind(L"^W", L"ed-delete-prev-word");
    bind(L"^U", L"vi-kill-line-prev");
    bind(L"\033[H", L"ed-move-to-beg");
    bind(L"\033[F", L"ed-move-to-end");
    bind(L"\033[1~", L"ed-move-to-beg");
    bind(L"\033[4~", L"ed-move-to-end");
    bind(L"\033[3~", L"ed-delete-next-char");
    bind(L"\033[1;5C", L"em-next-word");
    bind(L"\033[1;5D", L"ed-prev-word");
    el_source(el, nullptr);
  }
};

LineEditor::LineEditor(const History& history) : state_(std::make_unique<State>()) {
  use_utf8();
  state_->history.reset(history_init());
  HistEvent event;
  ::history(state_->history.get(), &event, H_SETSIZE, static_cast<int>(History::kLimit));
  state_->editor.reset(el_init("ollama", stdin, stdout, stderr));
  state_->set_up();
  for (const std::string& entry : history.entries()) remember(entry);
}

LineEditor::~LineEditor() = default;

LineEditor::Input LineEditor::read(std::string_view prompt, std::string_view placeholder) {
  state_->prompt = prompt;
  state_->placeholder = placeholder;
  state_->ending = Kind::kLine;
  if (!state_->pasting) write_out(kPasteOn);

  const ScopedSignal winch(SIGWINCH, on_resize);
  const ScopedSignal hup(SIGHUP, on_hang_up);
  const ScopedSignal term(SIGTERM, on_hang_up);
  int length = 0;
  const char* line = el_gets(state_->editor.get(), &length);

  Input input;
  if (line != nullptr && length > 0) {
    input.kind = state_->ending;
    input.text.assign(line, static_cast<std::size_t>(length));
    while (input.text.ends_with('\n') || input.text.ends_with('\r')) input.text.pop_back();
  }
  if (input.kind != Kind::kLine) state_->pasting = false;
  input.pasting = state_->pasting;
  if (!state_->pasting) write_out(kPasteOff);
  return input;
}

void LineEditor::remember(std::string_view line) {
  HistEvent event;
  ::history(state_->history.get(), &event, H_ENTER, std::string(line).c_str());
}

void LineEditor::prefill(std::string_view text) {
  std::string printable;
  while (!text.empty()) {
    const Character character = take_character(text);
    if (is_printable(character.code_point) && character.code_point != U'\n') {
      printable += character.bytes;
    }
  }
  if (!printable.empty()) el_push(state_->editor.get(), printable.c_str());
}

}  // namespace ollama::cmd

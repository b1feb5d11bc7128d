#include "chat/answer_parser.h"

#include <algorithm>
#include <utility>

#include "chat/call_watch.h"
#include "chat/tool_syntax.h"

namespace ollama::chat {
namespace {

using std::string_view;

constexpr string_view kBlanks = " \t\r\n";
// A call that does not end by then is none.
constexpr std::size_t kLongestCall = std::size_t{1} << 20;
// As many that are none are looked at in so long a rest of an answer.
constexpr std::size_t kMostMisread = 16;
constexpr std::size_t kLongAnswer = std::size_t{1} << 16;

// How much of the end of `text` could begin `mark`.
std::size_t beginning_of(string_view mark, string_view text) {
  for (std::size_t n = std::min(mark.size() - 1, text.size()); n > 0; --n) {
    if (text.ends_with(mark.substr(0, n))) return n;
  }
  return 0;
}

std::size_t trailing_blanks(string_view text) {
  const std::size_t last = text.find_last_not_of(kBlanks);
  return last == string_view::npos ? text.size() : text.size() - last - 1;
}

// Takes the first bytes out of a buffer.
std::string take(std::string& buffer, std::size_t count) {
  std::string text = buffer.substr(0, count);
  buffer.erase(0, count);
  return text;
}

}  // namespace

void AnswerPiece::append(AnswerPiece&& other) {
  text += other.text;
  thinking += other.thinking;
  std::ranges::move(other.calls, std::back_inserter(calls));
  ranges.insert(ranges.end(), other.ranges.begin(), other.ranges.end());
}

bool AnswerFormat::marks_are_tokens() const {
  switch (syntax) {
    case ToolSyntax::kLlama:
    case ToolSyntax::kMistral:
    case ToolSyntax::kDeepSeek:
    case ToolSyntax::kCommandR:
    case ToolSyntax::kHarmony:
    case ToolSyntax::kGemma:
    case ToolSyntax::kFunctionGemma:
    case ToolSyntax::kLfm:
    case ToolSyntax::kOlmo:
      return true;
    case ToolSyntax::kJson:
    case ToolSyntax::kHermes:
    case ToolSyntax::kQwenCoder:
    case ToolSyntax::kGlm:
    case ToolSyntax::kNone:
      return false;
  }
  return false;
}

AnswerFormat answer_format(string_view text, string_view architecture) {
  const auto mentions = [&](string_view mark) { return text.contains(mark); };
  AnswerFormat format;
  if (mentions("<think>") || mentions("</think>")) {
    format.think_open = "<think>";
    format.think_close = "</think>";
  } else if (mentions("[THINK]")) {
    format.think_open = "[THINK]";
    format.think_close = "[/THINK]";
  } else if (mentions("<|START_THINKING|>")) {
    format.think_open = "<|START_THINKING|>";
    format.think_close = "<|END_THINKING|>";
  } else if (mentions("<|channel>thought")) {
    format.think_open = "<|channel>thought";
    format.think_close = "<channel|>";
  }
  const std::pair<string_view, ToolSyntax> marks[] = {
      {"<|tool_call>", ToolSyntax::kGemma},
      {"<start_function_call>", ToolSyntax::kFunctionGemma},
      {"<|tool_call_start|>", ToolSyntax::kLfm},
      {"<function_calls>", ToolSyntax::kOlmo},
      {"<|channel|>", ToolSyntax::kHarmony},
      {"[TOOL_CALLS]", ToolSyntax::kMistral},
      {"<｜tool▁call", ToolSyntax::kDeepSeek},
      {"<|START_ACTION|>", ToolSyntax::kCommandR},
      {"Action:", ToolSyntax::kCommandR},
      {"<arg_key>", ToolSyntax::kGlm},
      {"<function=", ToolSyntax::kQwenCoder},
      {"<tool_call>", ToolSyntax::kHermes},
      {"<|python_tag|>", ToolSyntax::kLlama},
      {"<|start_header_id|>", ToolSyntax::kLlama},
  };
  const auto found =
      std::ranges::find_if(marks, [&](const auto& each) { return mentions(each.first); });
  if (found != std::end(marks)) {
    format.syntax = found->second;
  } else if (architecture == "gpt-oss") {
    format.syntax = ToolSyntax::kHarmony;
  } else if (architecture.starts_with("qwen")) {
    format.syntax = ToolSyntax::kHermes;
  } else if (architecture.starts_with("llama")) {
    format.syntax = ToolSyntax::kLlama;
  }
  return format;
}

bool opens_thinking(const AnswerFormat& format, string_view prompt) {
  return !format.think_open.empty() &&
         prompt.substr(0, prompt.size() - trailing_blanks(prompt)).ends_with(format.think_open);
}

std::optional<BeforeText> before_text(const AnswerFormat& format, bool thinks, string_view prompt) {
  if (format.syntax == ToolSyntax::kHarmony) {
    // Every answer is in a channel, unless the prompt has opened the last one.
    const std::size_t start = prompt.rfind("<|start|>");
    const string_view header = start == string_view::npos ? string_view() : prompt.substr(start);
    if (header.contains("<|channel|>final")) return std::nullopt;
    return BeforeText{.open = {},
                      .marks = {"<|channel|>final", "<|message|>"},
                      .ending = "<|end|><|start|>assistant<|channel|>final<|message|>",
                      .begun = true};
  }
  if (!thinks || format.think_open.empty()) return std::nullopt;
  return BeforeText{.open = format.think_open,
                    .marks = {format.think_close},
                    .ending = "\n" + format.think_close,
                    .begun = opens_thinking(format, prompt)};
}

class AnswerParser::State {
 public:
  explicit State(Options options) : options_(std::move(options)) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  virtual ~State() = default;

  AnswerPiece feed(string_view text) {
    buffer_ += text;
    fed_ += text.size();
    AnswerPiece out;
    while (step(out, false)) {
    }
    return out;
  }
  AnswerPiece finish() {
    AnswerPiece out;
    while (step(out, true)) {
    }
    return out;
  }

  virtual std::size_t undecided() const { return buffer_.size(); }
  virtual bool thinking() const = 0;

 protected:
  // Moves what is certain from the buffer to `out`; true: there may be more to do.
  virtual bool step(AnswerPiece& out, bool ended) = 0;

  // Text that stood in the answer up to `end`.
  void say(AnswerPiece& out, string_view text, std::size_t end) const {
    out.text += text;
    if (options_.ranges && !text.empty()) out.ranges.push_back({end - text.size(), end});
  }
  // Where in the answer the buffer begins.
  std::size_t position() const { return fed_ - buffer_.size(); }

  // Numbers the calls; false, and none of them, where one is of a tool that was not offered.
  bool add_calls(std::vector<api::ToolCall> calls, AnswerPiece& out) {
    const bool offered = std::ranges::all_of(calls, [&](const api::ToolCall& call) {
      return std::ranges::contains(options_.tools, call.name);
    });
    if (!offered || calls.empty()) return false;
    for (api::ToolCall& call : calls) {
      call.index = next_index_++;
      out.calls.push_back(std::move(call));
    }
    return true;
  }

  Options options_;
  std::string buffer_;
  std::size_t fed_ = 0;  // bytes of the answer so far
  std::int32_t next_index_ = 0;
};

// Thinking between two marks at the beginning, then text, then or among it calls.
class AnswerParser::Plain final : public State {
 public:
  Plain(const AnswerFormat& format, Options options)
      : State(std::move(options)), format_(format), syntax_(call_syntax(format.syntax)) {
    const bool tells_apart = options_.thinking || format_.hides_thinking;
    if (!tells_apart || format_.think_open.empty()) {
      now_ = Now::kText;
    } else if (options_.inside_thinking) {
      now_ = Now::kThinking;
      trims_ = true;
      may_open_ = true;
    }
  }

  std::size_t undecided() const override { return buffer_.size() + spared_.size(); }
  bool thinking() const override {
    return now_ == Now::kThinking || (now_ == Now::kCall && among_thoughts_);
  }

 private:
  enum class Now : std::uint8_t { kBeginning, kThinking, kText, kCall };

  bool step(AnswerPiece& out, bool ended) override {
    if (trims_) {
      buffer_.erase(0, std::min(buffer_.find_first_not_of(kBlanks), buffer_.size()));
      if (!buffer_.empty()) trims_ = false;
    }
    if (buffer_.empty()) return false;
    switch (now_) {
      case Now::kBeginning:
        return begin(ended);
      case Now::kThinking:
        return think(out, ended);
      case Now::kText:
        return read_text(out, ended);
      case Now::kCall:
        return call(out, ended);
    }
    return false;
  }

  bool begin(bool ended) {
    const std::size_t blanks = buffer_.find_first_not_of(kBlanks);
    const string_view text =
        blanks == std::string::npos ? string_view() : string_view(buffer_).substr(blanks);
    if (text.starts_with(format_.think_open)) {
      buffer_.erase(0, blanks + format_.think_open.size());
      now_ = Now::kThinking;
      trims_ = true;
      return true;
    }
    if (!ended && string_view(format_.think_open).starts_with(text)) return false;
    now_ = Now::kText;
    return true;
  }

  bool think(AnswerPiece& out, bool ended) {
    // Some open again what the prompt has opened.
    if (may_open_) {
      const string_view open = format_.think_open;
      if (!ended && buffer_.size() < open.size() && open.starts_with(buffer_)) return false;
      may_open_ = false;
      if (buffer_.starts_with(open)) {
        buffer_.erase(0, open.size());
        trims_ = true;
        return true;
      }
    }
    const std::size_t end = buffer_.find(format_.think_close);
    std::size_t held = 0;
    if (format_.calls_end_thinking && !options_.tools.empty()) {
      std::size_t at = end;
      for (const string_view opener : syntax_.openers) {
        at = std::min(at, buffer_.find(opener));
        held = std::max(held, beginning_of(opener, buffer_));
      }
      if (at < end) {
        const std::size_t blanks = trailing_blanks(string_view(buffer_).substr(0, at));
        thought(out, take(buffer_, at - blanks));
        spared_ = take(buffer_, blanks);
        among_thoughts_ = true;
        begin_call();
        return true;
      }
    }
    if (end != std::string::npos) {
      const std::size_t blanks = trailing_blanks(string_view(buffer_).substr(0, end));
      thought(out, take(buffer_, end - blanks));
      buffer_.erase(0, blanks + format_.think_close.size());
      now_ = Now::kText;
      trims_ = true;
      return true;
    }
    // Blanks before the closing mark are not thought.
    held = ended ? 0 : std::max(held, beginning_of(format_.think_close, buffer_));
    held += trailing_blanks(string_view(buffer_).substr(0, buffer_.size() - held));
    thought(out, take(buffer_, buffer_.size() - held));
    if (ended) buffer_.clear();
    return false;
  }

  void thought(AnswerPiece& out, string_view text) {
    if (options_.thinking) out.thinking += text;
  }

  bool read_text(AnswerPiece& out, bool ended) {
    const bool calls = !options_.tools.empty();
    if (calls && !said_) {
      const std::optional<std::size_t> begin = next_call(ended);
      if (!begin) return false;
      if (*begin != std::string::npos) {
        spared_ = take(buffer_, *begin);
        begin_call();
        return true;
      }
    }
    std::size_t at = std::string::npos;
    std::size_t held = 0;
    std::size_t silent = 0;  // bytes of a mark to drop, where one comes first
    const auto look_for = [&](string_view mark, std::size_t dropped) {
      // Not behind one that has been found: long texts of nothing but marks are read too.
      const std::size_t end = at == std::string::npos ? buffer_.size() : at + mark.size() - 1;
      const std::size_t found = string_view(buffer_).substr(0, end).find(mark);
      if (found != string_view::npos) {
        at = found;
        silent = dropped;
      }
      held = std::max(held, beginning_of(mark, buffer_));
    };
    if (calls) {
      for (const string_view opener : syntax_.openers) look_for(opener, 0);
    }
    for (const string_view mark : syntax_.silent) look_for(mark, mark.size());
    // Thoughts that a call has ended may be closed as well.
    if (called_among_thoughts_) look_for(format_.think_close, format_.think_close.size());
    // Blanks between calls, and behind the last one, are nobody's: after a call they wait for what
    // follows.
    const bool called = next_index_ > 0;
    const auto blanks_before = [&](std::size_t end, bool wait) {
      return wait ? trailing_blanks(string_view(buffer_).substr(0, end)) : 0;
    };
    if (at != std::string::npos) {
      const std::size_t blanks = blanks_before(at, called || trims());
      tell(out, take(buffer_, at - blanks));
      if (silent > 0) {
        const bool closes = called_among_thoughts_ &&
                            string_view(buffer_).substr(blanks).starts_with(format_.think_close);
        buffer_.erase(closes ? 0 : blanks, (closes ? blanks : 0) + silent);
        if (closes) called_among_thoughts_ = false;
        trims_ = closes;
        return true;
      }
      spared_ = take(buffer_, blanks);
      begin_call();
      return true;
    }
    const std::size_t certain = buffer_.size() - (ended ? 0 : held);
    tell(out, take(buffer_, certain - blanks_before(certain, called || (trims() && !ended))));
    if (ended) buffer_.clear();
    return false;
  }
  bool trims() const { return format_.trims_text && !options_.tools.empty(); }
  // Text that was taken from before the buffer.
  void tell(AnswerPiece& out, std::string_view text) {
    said_ = said_ || trailing_blanks(text) != text.size();
    say(out, text, position());
  }
  // Where the buffer begins a call for which nothing has to be looked for: one without a mark, or
  // behind another call and a separator. npos: it does not; nullopt: that shows later.
  std::optional<std::size_t> next_call(bool ended) const {
    constexpr std::size_t kNowhere = std::string::npos;
    std::size_t at = buffer_.find_first_not_of(kBlanks);
    const bool separated =
        next_index_ > 0 && at != kNowhere && (buffer_[at] == ',' || buffer_[at] == ';');
    if (separated) at = buffer_.find_first_not_of(kBlanks, at + 1);
    const string_view text = at == kNowhere ? string_view() : string_view(buffer_).substr(at);
    const auto is_whole = [&](string_view opener) { return text.starts_with(opener); };
    const auto may_be = [&](string_view opener) { return opener.starts_with(text); };
    if (std::ranges::any_of(syntax_.openers, is_whole)) return separated ? at : kNowhere;
    if (text.empty() || std::ranges::any_of(syntax_.openers, may_be)) {
      if (!ended && (separated || syntax_.bare)) return std::nullopt;
      return kNowhere;
    }
    const bool bare = syntax_.bare && (text.front() == '{' || text.front() == '[');
    return bare ? at : kNowhere;
  }

  void begin_call() {
    now_ = Now::kCall;
    watch_ = CallWatch(syntax_, among_thoughts_ ? string_view(format_.think_close) : string_view());
  }

  bool call(AnswerPiece& out, bool ended) {
    if (!ended && buffer_.size() <= kLongestCall && !watch_.worth_reading(buffer_)) return false;
    CallReading reading = syntax_.read(buffer_, ended);
    const bool among_thoughts = among_thoughts_;
    // Thoughts that speak of a mark go on to their end.
    const bool over = among_thoughts && buffer_.contains(format_.think_close);
    if (reading.kind == CallReading::Kind::kMore && buffer_.size() <= kLongestCall && !over) {
      return false;
    }
    // However the answer is cut: a call that thoughts end in is none.
    if (over && string_view(buffer_).substr(0, reading.length).contains(format_.think_close)) {
      reading = {};
    }
    among_thoughts_ = false;
    now_ = Now::kText;
    if (reading.texts) {
      for (api::ToolCall& each : reading.calls) give_types(each, options_.definitions);
    }
    if (reading.kind == CallReading::Kind::kCalls && add_calls(std::move(reading.calls), out)) {
      buffer_.erase(0, reading.length);
      spared_.clear();
      said_ = false;
      called_among_thoughts_ = called_among_thoughts_ || among_thoughts;
      return true;
    }
    // None: its beginning is text, and what follows is looked at again.
    const auto say_on = [&](std::string_view text) {
      if (among_thoughts) {
        thought(out, text);
      } else {
        tell(out, text);
      }
    };
    say_on(std::exchange(spared_, {}));
    // Each is read to the end of what has come: a model that begins calls for ever is not followed.
    if (++misread_ > kMostMisread && buffer_.size() > kLongAnswer) {
      say_on(std::exchange(buffer_, {}));
      if (among_thoughts) now_ = Now::kThinking;
      return true;
    }
    const auto opener = std::ranges::find_if(
        syntax_.openers, [&](string_view each) { return buffer_.starts_with(each); });
    const std::size_t beginning =
        opener == syntax_.openers.end() ? buffer_.find_first_not_of(kBlanks) + 1 : opener->size();
    say_on(take(buffer_, beginning));
    if (among_thoughts) now_ = Now::kThinking;
    return true;
  }

  AnswerFormat format_;
  const CallSyntax& syntax_;
  Now now_ = Now::kBeginning;
  bool trims_ = false;           // blanks that come next are dropped
  bool may_open_ = false;        // no thought has come yet
  std::string spared_;           // blanks before what may be a call
  CallWatch watch_;              // of it
  bool among_thoughts_ = false;  // that is where it may be
  bool called_among_thoughts_ = false;
  std::size_t misread_ = 0;  // what began like a call and was none
  bool said_ = false;        // text that was no blanks, since the last call
};

// gpt-oss: messages in channels. "analysis" is thought, "final" is said, and so is "commentary"
// unless it is addressed to a tool.
class AnswerParser::Harmony final : public State {
 public:
  using State::State;

  std::size_t undecided() const override {
    return stood_.empty() ? buffer_.size() : fed_ - stood_.front().begin;
  }
  bool thinking() const override { return !header_ && thinks_ && recipient_.empty(); }

 private:
  static constexpr string_view kStart = "<|start|>";
  static constexpr string_view kChannel = "<|channel|>";
  static constexpr string_view kMessage = "<|message|>";
  static constexpr string_view kConstrain = "<|constrain|>";
  static constexpr string_view kMarks[] = {kStart,    kChannel,   kMessage,    kConstrain,
                                           "<|end|>", "<|call|>", "<|return|>"};

  bool step(AnswerPiece& out, bool ended) override {
    std::size_t at = std::string::npos;
    std::size_t held = 0;
    string_view mark;
    for (const string_view each : kMarks) {
      if (const std::size_t found = buffer_.find(each); found < at) {
        at = found;
        mark = each;
      }
      held = std::max(held, beginning_of(each, buffer_));
    }
    if (mark.empty()) {
      pass(out, take(buffer_, buffer_.size() - (ended ? 0 : held)));
      if (ended) end_message(out);
      return false;
    }
    pass(out, take(buffer_, at));
    buffer_.erase(0, mark.size());
    passed(mark, out);
    return true;
  }

  // Text between two marks.
  void pass(AnswerPiece& out, std::string_view text) {
    if (header_) {
      header_text_ += text;
    } else if (!recipient_.empty()) {
      if (!text.empty() && arguments_.size() < kLongestCall) argue(text);
    } else if (thinks_ && options_.thinking) {
      out.thinking += text;
    } else if (!thinks_) {
      say(out, text, position());
    }
  }

  void argue(std::string_view text) {
    const std::size_t begin = position() - text.size();
    if (stood_.empty() || stood_.back().end != begin) stood_.push_back({begin, begin});
    stood_.back().end = position();
    arguments_ += text;
  }

  void passed(string_view mark, AnswerPiece& out) {
    if (mark == kMessage) {
      read_header();
    } else if (mark == kChannel || mark == kConstrain) {
      if (!header_) begin_header(out);
      header_text_ += ' ';
    } else {
      begin_header(out);
    }
  }
  void begin_header(AnswerPiece& out) {
    end_message(out);
    header_ = true;
    header_text_.clear();
  }
  void read_header() {
    header_ = false;
    const string_view text = header_text_;
    thinks_ = text.contains("analysis");
    recipient_.clear();
    static constexpr string_view kTo = "to=functions.";
    if (const std::size_t to = text.find(kTo); to != string_view::npos) {
      const string_view name = text.substr(to + kTo.size());
      recipient_ = name.substr(0, name.find_first_of(" \t\r\n<"));
    }
  }
  void end_message(AnswerPiece& out) {
    const std::string name = std::exchange(recipient_, {});
    const std::string arguments = std::exchange(arguments_, {});
    const std::vector<AnswerRange> stood = std::exchange(stood_, {});
    if (header_ || name.empty()) return;
    auto json = api::parse_json(arguments);
    api::ToolCall call;
    call.name = name;
    const bool good = json && json->is_object();
    if (good) call.arguments = json->as_object();
    if (good && add_calls({std::move(call)}, out)) return;
    string_view rest = arguments;
    for (const auto& [begin, end] : stood) {
      say(out, rest.substr(0, end - begin), end);
      rest.remove_prefix(end - begin);
    }
  }

  // The prompt ends where a header begins; an answer without one is text.
  bool header_ = false;
  bool thinks_ = false;
  std::string header_text_;
  std::string recipient_;  // the tool that the message is for
  std::string arguments_;
  std::vector<AnswerRange> stood_;  // where in the answer; marks may lie between
};

AnswerParser::AnswerParser(const AnswerFormat& format, Options options) {
  if (format.syntax == ToolSyntax::kHarmony) {
    state_ = std::make_unique<Harmony>(std::move(options));
  } else {
    state_ = std::make_unique<Plain>(format, std::move(options));
  }
}
AnswerParser::AnswerParser(AnswerParser&&) noexcept = default;
AnswerParser& AnswerParser::operator=(AnswerParser&&) noexcept = default;
AnswerParser::~AnswerParser() = default;

AnswerPiece AnswerParser::feed(string_view text) { return state_->feed(text); }
AnswerPiece AnswerParser::finish() { return state_->finish(); }
std::size_t AnswerParser::undecided() const { return state_->undecided(); }
bool AnswerParser::thinking() const { return state_->thinking(); }

}  // namespace ollama::chat

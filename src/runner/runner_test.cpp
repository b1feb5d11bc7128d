#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <rapidcheck.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <future>
#include <random>

#include "base/log.h"
#include "base/units.h"
#include "runner/child.h"
#include "runner/fake_engine.h"
#include "runner/frame.h"
#include "runner/local.h"
#include "runner/options.h"
#include "runner/outbox.h"
#include "runner/process.h"
#include "runner/process_runner.h"
#include "runner/protocol.h"
#include "runner/ranking.h"

namespace ollama::runner {
namespace {

using testing::HasSubstr;
using testing::Not;

// ---- Frames

// Frames cut anywhere by the socket must come out whole, in order, and nothing else with them.
TEST(Frame, ReassemblesAnyCut) {
  const bool good = rc::check([](const std::vector<std::string>& payloads, std::uint32_t seed) {
    std::string stream;
    for (const auto& payload : payloads) stream += make_frame(payload);
    std::mt19937 random(seed);
    FrameReader reader;
    std::vector<std::string> got;
    while (!stream.empty()) {
      const auto room = reader.prepare();
      const std::size_t n = std::min({stream.size(), room.size(), std::size_t{1 + random() % 7}});
      std::copy_n(stream.begin(), n, room.begin());
      stream.erase(0, n);
      reader.commit(n);
      while (true) {
        const auto next = reader.next();
        RC_ASSERT(next.has_value());
        if (!*next) break;
        got.emplace_back(**next);
      }
    }
    RC_ASSERT(got == payloads);
    RC_ASSERT(!reader.partial());
  });
  EXPECT_TRUE(good);
}

// A length beyond the limit would otherwise be waited for, or allocated.
TEST(Frame, RefusesLongFrames) {
  FrameReader reader(100);
  const std::string frame = make_frame(std::string(101, 'x')).substr(0, 4);
  std::ranges::copy(frame, reader.prepare().begin());
  reader.commit(4);
  const auto next = reader.next();
  ASSERT_FALSE(next.has_value());
  EXPECT_EQ(next.error().code(), ErrorCode::kCorrupt);
}

// Memory follows what arrives: a large claim alone must not make the buffer large.
TEST(Frame, DoesNotAllocateWhatIsOnlyClaimed) {
  FrameReader reader;
  const std::string head{'\xff', '\xff', '\xff', '\x0f'};
  std::ranges::copy(head, reader.prepare().begin());
  reader.commit(4);
  ASSERT_TRUE(reader.next().has_value());
  EXPECT_LE(reader.prepare().size(), 1U << 20);
}

// ---- Protocol

template <typename Variant, typename T>
T round_trip(const T& message) {
  const std::string frame = encode(Variant(message));
  if constexpr (std::is_same_v<Variant, ToRunner>) {
    return std::get<T>(decode_to_runner(std::string_view(frame).substr(4)).value());
  } else {
    return std::get<T>(decode_from_runner(std::string_view(frame).substr(4)).value());
  }
}

// A field that one side forgets changes what is generated, without any error.
TEST(Protocol, GenerateRoundTrip) {
  Generate message;
  message.id = 7;
  message.prompt = "a\"\n\xc3\xa9\xff";  // a prompt from a pipe may be any bytes
  message.messages.resize(1);
  message.messages[0].role = "user";
  message.messages[0].content = "Hi";
  message.template_text = "{{ .Prompt }}";
  message.tools = api::Json{{{"b", 1}, {"a", nullptr}}};
  message.think = api::Think{.enabled = true, .level = "low"};
  message.suffix = "s";
  message.raw = true;
  message.context = {1, 2, 3};
  message.want_context = true;
  message.render_only = true;
  message.sampling = {.temperature = 0.1F,
                      .top_k = 2,
                      .top_p = 0.3F,
                      .min_p = 0.4F,
                      .typical_p = 0.5F,
                      .repeat_last_n = -1,
                      .repeat_penalty = 1.5F,
                      .presence_penalty = -1,
                      .frequency_penalty = 2,
                      .seed = 1LL << 60};
  message.num_predict = -2;
  message.num_keep = 9;
  message.shift = false;
  message.truncate = false;
  message.ignore_end = true;
  message.stop = {"a", "b"};
  const Generate got = round_trip<ToRunner>(message);
  EXPECT_EQ(got.id, 7U);
  EXPECT_EQ(got.prompt, message.prompt);
  EXPECT_EQ(got.messages, message.messages);
  EXPECT_EQ(got.template_text, message.template_text);
  EXPECT_EQ(got.tools, message.tools);
  EXPECT_EQ(got.think, message.think);
  EXPECT_EQ(got.suffix, "s");
  EXPECT_TRUE(got.raw && got.want_context && got.render_only && got.ignore_end);
  EXPECT_FALSE(got.shift || got.truncate);
  EXPECT_EQ(got.context, message.context);
  EXPECT_EQ(got.stop, message.stop);
  EXPECT_EQ(got.num_predict, -2);
  EXPECT_EQ(got.num_keep, 9);
  EXPECT_EQ(got.sampling.temperature, 0.1F);
  EXPECT_EQ(got.sampling.top_k, 2);
  EXPECT_EQ(got.sampling.top_p, 0.3F);
  EXPECT_EQ(got.sampling.min_p, 0.4F);
  EXPECT_EQ(got.sampling.typical_p, 0.5F);
  EXPECT_EQ(got.sampling.repeat_last_n, -1);
  EXPECT_EQ(got.sampling.repeat_penalty, 1.5F);
  EXPECT_EQ(got.sampling.presence_penalty, -1.0F);
  EXPECT_EQ(got.sampling.frequency_penalty, 2.0F);
  EXPECT_EQ(got.sampling.seed, 1LL << 60);
}

TEST(Protocol, SamplingRoundTrip) {
  Generate message;
  message.sampling = {.logit_bias = {{7, -100.0F}, {8, 0.5F}},
                      .dynatemp_range = 0.1F,
                      .dynatemp_exponent = 0.2F,
                      .xtc_probability = 0.3F,
                      .xtc_threshold = 0.4F,
                      .dry_multiplier = 0.5F,
                      .dry_base = 1.6F,
                      .dry_allowed_length = 7,
                      .dry_penalty_last_n = 8,
                      .dry_sequence_breakers = {"x"},
                      .mirostat = 2,
                      .mirostat_tau = 9.0F,
                      .mirostat_eta = 0.9F,
                      .logprobs = 3};
  const sample::Options got = round_trip<ToRunner>(message).sampling;
  ASSERT_EQ(got.logit_bias.size(), 2U);
  EXPECT_EQ(got.logit_bias[0].token, 7);
  EXPECT_EQ(got.logit_bias[1].bias, 0.5F);
  EXPECT_EQ(got.dynatemp_range, 0.1F);
  EXPECT_EQ(got.dynatemp_exponent, 0.2F);
  EXPECT_EQ(got.xtc_probability, 0.3F);
  EXPECT_EQ(got.xtc_threshold, 0.4F);
  EXPECT_EQ(got.dry_multiplier, 0.5F);
  EXPECT_EQ(got.dry_base, 1.6F);
  EXPECT_EQ(got.dry_allowed_length, 7);
  EXPECT_EQ(got.dry_penalty_last_n, 8);
  EXPECT_EQ(got.dry_sequence_breakers, std::vector<std::string>{"x"});
  EXPECT_EQ(got.mirostat, 2);
  EXPECT_EQ(got.mirostat_tau, 9.0F);
  EXPECT_EQ(got.mirostat_eta, 0.9F);
  EXPECT_EQ(got.logprobs, 3);
}

// Each option that a request may have reaches the sampler.
TEST(Options, AreAllApplied) {
  const auto json = api::parse_json(
      R"({"temperature":0.5,"top_k":7,"seed":3,"num_predict":9,"stop":["x"],"mirostat":1,)"
      R"("mirostat_tau":2,"mirostat_eta":0.5,"dynatemp_range":0.25,"dynatemp_exponent":2,)"
      R"("xtc_probability":0.5,"xtc_threshold":0.25,"dry_multiplier":1,"dry_base":2,)"
      R"("dry_allowed_length":4,"dry_penalty_last_n":64,"dry_sequence_breakers":["a"],)"
      R"("logit_bias":{"5":-100}})");
  Generate generate;
  apply_options(api::parse_options_value(*json).value(), generate);
  const sample::Options& got = generate.sampling;
  EXPECT_EQ(generate.num_predict, 9);
  EXPECT_EQ(generate.stop, std::vector<std::string>{"x"});
  EXPECT_TRUE(got.temperature == 0.5F && got.top_k == 7 && got.seed == 3);
  EXPECT_TRUE(got.mirostat == 1 && got.mirostat_tau == 2.0F && got.mirostat_eta == 0.5F);
  EXPECT_TRUE(got.dynatemp_range == 0.25F && got.dynatemp_exponent == 2.0F);
  EXPECT_TRUE(got.xtc_probability == 0.5F && got.xtc_threshold == 0.25F);
  EXPECT_TRUE(got.dry_multiplier == 1.0F && got.dry_base == 2.0F && got.dry_allowed_length == 4);
  EXPECT_EQ(got.dry_penalty_last_n, 64);
  EXPECT_EQ(got.dry_sequence_breakers, std::vector<std::string>{"a"});
  ASSERT_EQ(got.logit_bias.size(), 1U);
  EXPECT_TRUE(got.logit_bias[0].token == 5 && got.logit_bias[0].bias == -100.0F);
}

TEST(Protocol, OtherRoundTrips) {
  Load load{.path = "/m.gguf", .options = {}};
  load.options.context = 77;
  load.options.parallel = 3;
  load.options.kv_type = ml::DType::kQ8_0;
  load.options.flash_attention = ml::FlashAttention::kOff;
  load.options.use_mmap = false;
  const Load got = round_trip<ToRunner>(load);
  EXPECT_EQ(got.path, "/m.gguf");
  EXPECT_EQ(got.options.context, 77U);
  EXPECT_EQ(got.options.parallel, 3U);
  EXPECT_EQ(got.options.kv_type, ml::DType::kQ8_0);
  EXPECT_EQ(got.options.flash_attention, ml::FlashAttention::kOff);
  EXPECT_FALSE(got.options.use_mmap);
  round_trip<ToRunner>(Shutdown{});
  EXPECT_EQ(round_trip<ToRunner>(Cancel{.id = 3}).id, 3U);
  EXPECT_EQ(round_trip<ToRunner>(Embed{.id = 1, .text = "t", .truncate = false}).text, "t");
  const Rank rank = round_trip<ToRunner>(Rank{.id = 2, .query = "q", .documents = {"d", ""}});
  EXPECT_TRUE(rank.id == 2 && rank.query == "q");
  EXPECT_EQ(rank.documents, (std::vector<std::string>{"d", ""}));

  Done done{.id = 4,
            .reason = engine::DoneReason::kLength,
            .stats = {},
            .context = {5, 6},
            .thinking_tokens = 7};
  done.stats.prompt_ns = 12;
  done.stats.generated_tokens = 34;
  const Done got_done = round_trip<FromRunner>(done);
  EXPECT_EQ(got_done.reason, engine::DoneReason::kLength);
  EXPECT_EQ(got_done.stats.prompt_ns, 12);
  EXPECT_EQ(got_done.stats.generated_tokens, 34U);
  EXPECT_EQ(got_done.context, done.context);
  EXPECT_EQ(got_done.thinking_tokens, 7U);
  const Embedded embedded{.id = 1, .values = {1.25F, -INFINITY, NAN}, .tokens = 2};
  const Embedded got_embedded = round_trip<FromRunner>(embedded);
  EXPECT_EQ(got_embedded.values[0], 1.25F);
  EXPECT_TRUE(std::isinf(got_embedded.values[1]));
  EXPECT_TRUE(std::isnan(got_embedded.values[2]));
  EXPECT_EQ(
      round_trip<FromRunner>(Failed{.id = 1, .code = ErrorCode::kOutOfMemory, .message = "m"}).code,
      ErrorCode::kOutOfMemory);
}

// A broken runner must give an error that names the field, never a crash or a half-read message.
TEST(Protocol, HostilePayloads) {
  for (const char* payload :
       {"", "{", "[]", "{}", "null", R"({"piece":1})", R"({"piece":{}})", R"({"nonsense":{}})",
        R"({"piece":{"id":-1,"text":"","tokens":0}})", R"({"piece":{"id":1,"text":2,"tokens":0}})",
        R"({"piece":{"id":1,"text":"","tokens":4294967296}})",
        R"({"failed":{"id":1,"code":99,"message":""}})", R"({"tokens":{"id":1,"tokens":[1,"2"]}})",
        R"({"tokens":{"id":1,"tokens":{}}})",
        R"({"done":{"id":1,"reason":0,"stats":[],"context":[]}})",
        R"({"piece":{"id":1,"text":"","tokens":0},"text":{"id":1,"text":""}})"}) {
    const auto decoded = decode_from_runner(payload);
    ASSERT_FALSE(decoded.has_value()) << payload;
    EXPECT_EQ(decoded.error().code(), ErrorCode::kCorrupt) << payload;
  }
  EXPECT_THAT(
      std::string(
          decode_from_runner(R"({"done":{"id":1,"reason":0,"stats":{}}})").error().message()),
      HasSubstr("done.stats.prompt_tokens"));
  std::string deep(100'000, '[');
  EXPECT_FALSE(decode_from_runner(deep).has_value());
}

// ---- Processes

Command shell(const std::string& script) {
  Command command;
  command.executable = "/bin/sh";
  command.arguments = {"sh", "-c", script};
  command.environment = runner_environment(0);
  return command;
}

std::string read_all(int fd) {
  std::string text;
  std::array<char, 1024> buffer;
  while (true) {
    const ssize_t bytes = ::read(fd, buffer.data(), buffer.size());
    if (bytes <= 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(bytes));
  }
}
ExitStatus wait_for(Process& process) {
  pollfd exit{.fd = process.pidfd().get(), .events = POLLIN, .revents = 0};
  while (::poll(&exit, 1, -1) < 0) {
  }
  return process.try_wait().value();
}

// A descriptor that leaks into a runner keeps connections open after the server closed them.
TEST(Process, InheritsNothingButItsSocket) {
  const UniqueFd leak(::open("/dev/zero", O_RDONLY));  // without close-on-exec
  auto process = Process::start(shell("ls /proc/self/fd | tr '\\n' ' '; readlink /proc/self/fd/0"));
  ASSERT_TRUE(process.has_value()) << process.error().message();
  // ls opens the directory itself, as the lowest free number.
  EXPECT_THAT(read_all(process->errors().get()),
              testing::MatchesRegex("0 1 2 3 4 [\n]?/dev/null\n"));
  EXPECT_EQ(wait_for(*process).code, 0);
}

TEST(Process, SocketIsConnected) {
  auto process = Process::start(shell("cat <&3 >&3"));
  ASSERT_TRUE(process.has_value());
  ASSERT_EQ(::write(process->socket().get(), "hello", 5), 5);
  ::shutdown(process->socket().get(), SHUT_WR);
  EXPECT_EQ(read_all(process->socket().get()), "hello");
}

TEST(Process, TellsHowItEnded) {
  auto exits = Process::start(shell("exit 3"));
  EXPECT_EQ(wait_for(*exits).describe(), "exit status 3");
  auto killed = Process::start(shell("sleep 100"));
  EXPECT_FALSE(killed->try_wait().has_value());
  killed->signal(SIGKILL);
  EXPECT_EQ(wait_for(*killed).signal, SIGKILL);
  EXPECT_EQ(killed->try_wait()->describe(), "signal 9: Killed");
  Command missing = shell("");
  missing.executable = "/nonexistent/program";
  const auto failed = Process::start(missing);
  ASSERT_FALSE(failed.has_value());
  EXPECT_THAT(std::string(failed.error().message()), HasSubstr("/nonexistent/program"));
}

// A handle that goes away must not leave a process behind.
TEST(Process, EndsWithItsHandle) {
  pid_t pid = 0;
  {
    auto process = Process::start(shell("sleep 1000"));
    pid = process->pid();
    EXPECT_EQ(::kill(pid, 0), 0);
  }
  EXPECT_NE(::kill(pid, 0), 0);
}

// GGML would load and run whatever GGML_BACKEND_PATH names.
TEST(Process, EnvironmentIsPrepared) {
  const auto environment =
      runner_environment(4, {"GGML_BACKEND_PATH=/tmp/evil.so", "OMP_PROC_BIND=true", "HOME=/h"});
  EXPECT_THAT(environment, testing::Contains("HOME=/h"));
  EXPECT_THAT(environment, testing::Contains("OMP_NUM_THREADS=4"));
  EXPECT_THAT(environment, testing::Contains("OMP_PROC_BIND=true"));
  EXPECT_THAT(environment, Not(testing::Contains("OMP_PROC_BIND=false")));
  EXPECT_THAT(environment, Not(testing::Contains(testing::StartsWith("GGML_BACKEND_PATH"))));
}

// ---- The way to the server

std::array<UniqueFd, 2> socket_pair() {
  int sockets[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
  return {UniqueFd(sockets[0]), UniqueFd(sockets[1])};
}

// All messages up to the end of the stream.
std::vector<FromRunner> read_messages(int fd) {
  std::vector<FromRunner> messages;
  FrameReader reader;
  while (true) {
    const auto room = reader.prepare();
    const ssize_t bytes = ::recv(fd, room.data(), room.size(), 0);
    if (bytes <= 0) return messages;
    reader.commit(static_cast<std::size_t>(bytes));
    for (auto next = reader.next(); *next; next = reader.next()) {
      messages.push_back(decode_from_runner(**next).value());
    }
  }
}

// What was given before the end arrives, in its order, whoever gave it.
TEST(Outbox, KeepsTheOrder) {
  auto [ours, theirs] = socket_pair();
  auto messages = std::async(std::launch::async, read_messages, theirs.get());
  {
    Outbox outbox(ours.get());
    std::vector<std::jthread> givers;
    for (const Id id : {0U, 1U}) {
      givers.emplace_back([&outbox, id] {
        for (std::uint32_t i = 0; i < 2000; ++i) {
          EXPECT_TRUE(outbox.send(Piece{.id = id, .text = "x", .tokens = i}));
        }
        outbox.send(Done{.id = id});
      });
    }
  }
  ours.reset();
  std::array<std::uint32_t, 2> next{};
  std::size_t ended = 0;
  for (const FromRunner& message : messages.get()) {
    if (const auto* piece = std::get_if<Piece>(&message)) {
      EXPECT_EQ(piece->tokens, next.at(piece->id)++);
    } else {
      EXPECT_EQ(next.at(std::get<Done>(message).id), 2000U);
      ++ended;
    }
  }
  EXPECT_EQ(ended, 2U);
}

// An answer that nobody reads must not fill the memory, whatever it consists of.
TEST(Outbox, DropsWhatIsNotRead) {
  Piece text{.id = 1, .text = std::string(64 * kKiB, 'x')};
  Piece thought{.id = 1, .thinking = std::string(64 * kKiB, 'x')};
  Piece call{.id = 1, .calls = std::vector<api::ToolCall>(1)};
  call.calls[0].arguments = {{"a", std::string(64 * kKiB, 'x')}};
  Piece logprobs{.id = 1, .logprobs = std::vector<api::Logprob>(1000)};
  for (const Piece& piece : {text, thought, call, logprobs}) {
    auto [ours, theirs] = socket_pair();
    std::future<std::vector<FromRunner>> messages;
    std::size_t taken = 0;
    {
      Outbox outbox(ours.get(), kMiB);
      while (taken < 1000 && outbox.send(piece, false)) ++taken;
      EXPECT_LT(taken, 100U) << "64 KiB each, of which two MiB and the socket's hold some";
      EXPECT_GT(taken, 10U);
      EXPECT_TRUE(outbox.send(Done{.id = 1})) << "that it has ended must be told";
      messages = std::async(std::launch::async, read_messages, theirs.get());
    }
    ours.reset();
    const std::vector<FromRunner> told = messages.get();
    ASSERT_EQ(told.size(), taken + 1) << "what was taken arrives";
    EXPECT_TRUE(std::holds_alternative<Done>(told.back()));
  }
}

// A server that is gone is noticed, and nobody waits for it.
TEST(Outbox, EndsWithItsSocket) {
  auto [ours, theirs] = socket_pair();
  theirs.reset();
  Outbox outbox(ours.get());
  while (outbox.send(Piece{.id = 1, .text = "x"})) std::this_thread::yield();
}

// ---- The child, over a bare socket and in this process

class Child {
 public:
  Child() {
    auto [ours, theirs] = socket_pair();
    socket_ = std::move(ours);
    thread_ = std::thread(
        [fd = theirs.release(), this] { exit_code_ = serve_requests(fd, load_fake_engine); });
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { end(); }
  int end() {
    socket_.reset();
    if (thread_.joinable()) thread_.join();
    return exit_code_;
  }

  void send(const ToRunner& message) { send_bytes(encode(message)); }
  void send_bytes(std::string_view bytes) const {
    EXPECT_EQ(::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  FromRunner receive_any() {
    while (true) {
      auto payload = reader_.next();
      if (payload && *payload) {
        auto message = decode_from_runner(**payload).value();
        if (!std::holds_alternative<Progress>(message)) return message;
        continue;
      }
      const auto room = reader_.prepare();
      const ssize_t bytes = ::recv(socket_.get(), room.data(), room.size(), 0);
      EXPECT_GT(bytes, 0);
      if (bytes <= 0) return LoadFailed{};
      reader_.commit(static_cast<std::size_t>(bytes));
    }
  }
  template <typename T>
  T receive() {
    FromRunner message = receive_any();
    EXPECT_TRUE(std::holds_alternative<T>(message)) << "message " << message.index();
    return std::holds_alternative<T>(message) ? std::get<T>(std::move(message)) : T{};
  }
  void load(const engine::LoadOptions& options = {}) {
    send(Load{.path = "model", .options = options});
    receive<Ready>();
  }

 private:
  UniqueFd socket_;
  FrameReader reader_;
  int exit_code_ = -1;
  std::thread thread_;
};

Generate raw_prompt(Id id, std::string text) {
  Generate message;
  message.id = id;
  message.prompt = std::move(text);
  message.raw = true;
  return message;
}

TEST(Child, AnswersARawPrompt) {
  Child child;
  child.load();
  Generate message = raw_prompt(1, "ab");
  message.want_context = true;
  child.send(message);
  EXPECT_EQ(child.receive<Piece>().text, "A");
  EXPECT_EQ(child.receive<Piece>().text, "B");
  const Done done = child.receive<Done>();
  EXPECT_EQ(done.reason, engine::DoneReason::kStop);
  EXPECT_EQ(done.stats.prompt_tokens, 3U);  // BOS as well
  EXPECT_EQ(done.context, (std::vector<Token>{256, 'a', 'b', 'a', 'b'}));
}

// What a client sends back with its next prompt is what the model has read, not all of a prompt
// that was cut to the context.
TEST(Child, TellsTheContextThatWasEvaluated) {
  Child child;
  child.load({.context = 8});
  Generate message = raw_prompt(1, std::string(100'000, 'x'));
  message.num_predict = 2;
  message.want_context = true;
  child.send(message);
  child.receive<Piece>();
  child.receive<Piece>();
  EXPECT_EQ(child.receive<Done>().context,
            (std::vector<Token>{256, 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x'}));
}

TEST(Child, TellsThePromptsTokensWhereTheyAreWanted) {
  Child child;
  child.load();
  Generate message = raw_prompt(1, "ab");
  message.want_begun = true;
  child.send(message);
  EXPECT_EQ(child.receive<Begun>().prompt_tokens, 3U);
  EXPECT_EQ(child.receive<Piece>().text, "A");
}

// Thoughts, marks and calls have none, however much of them is held back until it is clear what
// they are.
TEST(Child, TellsLogprobsOfTheTextAlone) {
  for (const auto& [said, text] :
       {std::pair("<think>no</think>\n\nyes", "yes"),
        std::pair("one <tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", "one "),
        std::pair("<tool_call>none</tool_call>", "<tool_call>none</tool_call>"),
        std::pair("<think>no</think><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
                  ""),
        std::pair("1 < 2 <too", "1 < 2 <too")}) {
    Child child;
    child.load();
    Generate message = raw_prompt(1, std::string("=") + said);
    message.template_text = "<think> <tool_call>";
    message.take_apart = true;
    message.think = api::Think{.enabled = true, .level = {}};
    message.tools = *api::parse_json(R"([{"function":{"name":"f"}}])");
    message.sampling.logprobs = 0;
    message.text_logprobs = true;
    child.send(message);
    std::string told;
    std::string tokens;
    FromRunner event = child.receive_any();
    for (; std::holds_alternative<Piece>(event); event = child.receive_any()) {
      const auto& piece = std::get<Piece>(event);
      told += piece.text;
      for (const api::Logprob& logprob : piece.logprobs) tokens += logprob.token;
    }
    EXPECT_TRUE(std::holds_alternative<Done>(event));
    EXPECT_EQ(told, text);
    EXPECT_EQ(tokens, text);
  }
}

// A token is a byte here.
TEST(Child, CountsTheTokensOfThoughts) {
  for (const auto& [said, thinks, count] :
       {std::tuple("<think>no</think>\n\nyes", true, 17U), std::tuple("<think>no", true, 9U),
        std::tuple("yes", true, 0U), std::tuple("<think>no</think>\n\nyes", false, 0U)}) {
    Child child;
    child.load();
    Generate message = raw_prompt(1, std::string("=") + said);
    message.template_text = "<think>";
    message.take_apart = true;
    message.think = api::Think{.enabled = thinks, .level = {}};
    child.send(message);
    FromRunner event = child.receive_any();
    while (std::holds_alternative<Piece>(event)) event = child.receive_any();
    ASSERT_TRUE(std::holds_alternative<Done>(event));
    EXPECT_EQ(std::get<Done>(event).thinking_tokens, count) << said;
  }
}

TEST(Child, TellsLogprobsWithTheirTokens) {
  Child child;
  child.load();
  Generate message = raw_prompt(1, "a\xC3");
  message.sampling.logprobs = 2;
  child.send(message);
  const Piece first = child.receive<Piece>();
  ASSERT_EQ(first.logprobs.size(), 1U);
  EXPECT_EQ(first.logprobs[0].token, "A");
  EXPECT_EQ(first.logprobs[0].logprob, -1);
  ASSERT_EQ(first.logprobs[0].top.size(), 2U);
  EXPECT_EQ(first.logprobs[0].top[1].token, "a");
  EXPECT_EQ(first.logprobs[0].top[1].logprob, -2);
  const Piece second = child.receive<Piece>();
  ASSERT_EQ(second.logprobs.size(), 1U);
  EXPECT_EQ(second.logprobs[0].token, "\xEF\xBF\xBD") << "a part of a character is not text";
  EXPECT_EQ(second.logprobs[0].bytes, std::vector<std::int32_t>{0xC3});
  child.receive<Done>();
}

TEST(Child, RendersMessagesAndContext) {
  Child child;
  child.load();
  Generate message;
  message.id = 1;
  message.messages.resize(1);
  message.messages[0].role = "user";
  message.messages[0].content = "x";
  message.template_text = "[{{ .Prompt }}]{{ .Response }}";
  message.context = {256, 'q'};
  message.num_predict = 0;
  message.want_context = true;
  child.send(message);
  EXPECT_EQ(child.receive<Done>().context, (std::vector<Token>{256, 'q', '[', 'x', ']'}));
  message.render_only = true;
  child.send(message);
  EXPECT_EQ(child.receive<Text>().text, "[x]");
}

// Tools, thinking and the text after a gap must reach the template, and its errors the client.
TEST(Child, TemplatesSeeTheWholeRequest) {
  Child child;
  child.load();
  Generate message;
  message.id = 1;
  message.render_only = true;
  message.messages.resize(1);
  message.messages[0].role = "user";
  message.messages[0].content = "x";
  message.tools = api::parse_json(R"([{"type":"function","function":{"name":"f"}}])").value();
  message.think = api::Think{.enabled = true, .level = "low"};
  message.template_text =
      "{{ range .Messages }}{{ .Content }}{{ end }} {{ .ThinkLevel }}{{ range .Tools }} "
      "{{ .Function.Name }}{{ end }}";
  child.send(message);
  EXPECT_EQ(child.receive<Text>().text, "x low f");
  message.prompt = "a";
  message.suffix = "b";
  message.template_text = "{{ .Prompt }}_{{ .Suffix }}";
  child.send(message);
  EXPECT_EQ(child.receive<Text>().text, "a_b");
  message.template_text = "\n{{ nosuch }}";
  child.send(message);
  const Failed failed = child.receive<Failed>();
  EXPECT_EQ(failed.code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(failed.message, HasSubstr("template:2:4: "));
}

// Long conversations lose their oldest turns, not the system's message and not the question.
TEST(Child, DropsOldTurnsThatDoNotFit) {
  Child child;
  child.load();  // a context of 128
  Generate message;
  message.id = 1;
  message.render_only = true;
  for (const auto& [role, content] : std::vector<std::pair<std::string, std::string>>{
           {"system", "s"}, {"user", std::string(200, 'x')}, {"assistant", "a"}, {"user", "q"}}) {
    message.messages.emplace_back();
    message.messages.back().role = role;
    message.messages.back().content = content;
  }
  child.send(message);
  EXPECT_EQ(child.receive<Text>().text, "s\nq");
}

// An agent's work is one long turn: its question stays, and results stay with their calls.
TEST(Child, DropsOldStepsOfALongTurn) {
  Child child;
  child.load();  // a context of 128
  Generate message;
  message.id = 1;
  message.render_only = true;
  message.template_text = "{{ range .Messages }}{{ .Role }}:{{ .Content }} {{ end }}";
  const auto say = [&](const char* role, std::string content) {
    message.messages.emplace_back();
    message.messages.back().role = role;
    message.messages.back().content = std::move(content);
  };
  say("user", "old");
  say("assistant", "answer");
  say("user", "question");
  for (int i = 0; i < 12; ++i) {
    say("assistant", std::format("call{}", i));
    say("tool", std::format("result{}", i));
  }
  child.send(message);
  EXPECT_EQ(child.receive<Text>().text,
            "user:question assistant:call9 tool:result9 assistant:call10 tool:result10 "
            "assistant:call11 tool:result11 ");
}

// Many templates take a conversation only where user and assistant take turns.
TEST(Child, DropsNoHalfOfATurn) {
  Child child;
  child.load();  // a context of 128
  Generate message;
  message.id = 1;
  message.render_only = true;
  message.template_text =
      R"({{ range $i, $m := .Messages }}{{ if eq $i 0 }}{{ if ne $m.Role "user" }})"
      R"({{ index $m.Role 99 }}{{ end }}{{ end }}{{ $m.Content }} {{ end }})";
  for (int i = 0; i < 40; ++i) {
    message.messages.emplace_back();
    message.messages.back().role = i % 2 == 0 ? "user" : "assistant";
    message.messages.back().content = std::format("{:02}", i);
  }
  for (int last = 40; last > 36; --last) {
    child.send(message);
    const auto told = child.receive_any();
    ASSERT_TRUE(std::holds_alternative<Text>(told)) << std::get<Failed>(told).message;
    EXPECT_THAT(std::get<Text>(told).text, testing::EndsWith(std::format("{:02} ", last - 1)));
    EXPECT_GT(std::get<Text>(told).text.size(), 90U) << "as much as fits";
    message.messages.pop_back();
  }
}

// An image is its 768 tokens, of which a context of 2,048 holds two.
TEST(Child, CountsImagesWhereTurnsMustGo) {
  Child child;
  child.load({.context = 2048});
  Generate message;
  message.id = 1;
  message.render_only = true;
  for (const auto& [role, content, images] :
       std::vector<std::tuple<std::string, std::string, std::size_t>>{{"user", "a", 1},
                                                                      {"assistant", "b", 0},
                                                                      {"user", "c", 1},
                                                                      {"assistant", "d", 0},
                                                                      {"user", "e", 1}}) {
    message.messages.emplace_back();
    message.messages.back().role = role;
    message.messages.back().content = content;
    message.messages.back().images.resize(images, "an image");
  }
  message.template_text = "{{ range .Messages }}{{ .Content }}:{{ len .Images }} {{ end }}";
  child.send(message);
  const Text cut = child.receive<Text>();
  EXPECT_EQ(cut.text, "[img-0]c:1 d:0 [img-1]e:1 ");
  EXPECT_EQ(cut.images, 2U);
  // The last turn stays, whatever it takes.
  message.messages.back().images.resize(5, "an image");
  child.send(message);
  EXPECT_EQ(child.receive<Text>().images, 5U);
  message.truncate = false;
  child.send(message);
  EXPECT_EQ(child.receive<Text>().images, 7U);
}

TEST(Child, CancelEndsAnAnswer) {
  Child child;
  child.load();
  child.send(raw_prompt(1, "~"));
  child.receive<Piece>();
  child.send(Cancel{.id = 99});
  child.send(Cancel{.id = 1});
  FromRunner message = Piece{};
  while (std::holds_alternative<Piece>(message)) message = child.receive_any();
  ASSERT_TRUE(std::holds_alternative<Done>(message));
  EXPECT_EQ(std::get<Done>(message).reason, engine::DoneReason::kCancelled);
}

TEST(Child, ReportsErrors) {
  Child child;
  child.send(raw_prompt(1, "early"));
  EXPECT_EQ(child.receive<Failed>().code, ErrorCode::kUnavailable);
  child.load();
  child.send(Load{.path = "again", .options = {}});
  EXPECT_EQ(child.receive<LoadFailed>().code, ErrorCode::kAlreadyExists);
  Generate hot = raw_prompt(2, "x");
  hot.sampling.temperature = 1000;
  child.send(hot);
  const Failed failed = child.receive<Failed>();
  EXPECT_EQ(failed.id, 2U);
  EXPECT_EQ(failed.code, ErrorCode::kInvalidArgument);
  Generate foreign;
  foreign.id = 3;
  foreign.messages.resize(1);
  foreign.context = {100000};
  child.send(foreign);
  EXPECT_THAT(child.receive<Failed>().message, HasSubstr("100000"));

  Child missing;
  missing.send(Load{.path = "missing", .options = {}});
  EXPECT_EQ(missing.receive<LoadFailed>().code, ErrorCode::kNotFound);
}

TEST(Child, EmbedsAndTokenizes) {
  Child child;
  child.load();
  child.send(Embed{.id = 1, .text = "abc", .truncate = true});
  EXPECT_EQ(child.receive<Embedded>().values, (std::vector<float>{4, 3}));
  child.send(Embed{.id = 2, .text = std::string(1000, 'x'), .truncate = true});
  EXPECT_EQ(child.receive<Embedded>().tokens, 128U);
  child.send(Embed{.id = 3, .text = std::string(1000, 'x'), .truncate = false});
  EXPECT_EQ(child.receive<Failed>().code, ErrorCode::kInvalidArgument);
  child.send(Tokenize{.id = 4, .text = "ab", .add_special = true, .parse_special = false});
  EXPECT_EQ(child.receive<Tokens>().tokens, (std::vector<Token>{256, 'a', 'b'}));
}

TEST(Child, RanksDocuments) {
  Child child;
  child.send(Load{.path = "ranker", .options = {}});
  EXPECT_TRUE(child.receive<Ready>().info.ranks);
  child.send(Rank{.id = 1, .query = "abc", .documents = {"d", "ef"}});
  const Embedded ranked = child.receive<Embedded>();
  EXPECT_EQ(ranked.values, (std::vector<float>{4, 4})) << "documents begin behind BOS and a query";
  EXPECT_EQ(ranked.tokens, 11U);
  child.send(Rank{.id = 2, .query = "abc", .documents = {std::string(1000, 'x')}});
  EXPECT_EQ(child.receive<Embedded>().tokens, 128U) << "the document is cut to the context";
  child.send(Rank{.id = 3, .query = std::string(1000, 'x'), .documents = {"d"}});
  EXPECT_THAT(child.receive<Failed>().message, HasSubstr("leave no room for a document"));
}

// One answer, whatever becomes of the documents, and the first error's.
TEST(Ranking, AnswersOnce) {
  int answers = 0;
  Ranking good(2, [&](const auto& scores) {
    ++answers;
    EXPECT_EQ(scores.value(), (std::vector<float>{1, 2}));
  });
  good.settle(1, 2.0F);
  good.settle(0, 1.0F);
  Ranking bad(3, [&](const auto& scores) {
    ++answers;
    EXPECT_EQ(scores.error().message(), "first");
  });
  bad.settle(2, fail(ErrorCode::kInternal, "first"));
  bad.settle(0, 1.0F);
  bad.settle(1, fail(ErrorCode::kInternal, "second"));
  EXPECT_EQ(answers, 2);
}

// A server that is gone must not leave a runner computing, nor one stuck in loading.
TEST(Child, EndsWithItsSocket) {
  Child idle;
  EXPECT_EQ(idle.end(), 0);
  Child loading;
  loading.send(Load{.path = "slow", .options = {}});
  EXPECT_EQ(loading.end(), 0);
  Child busy;
  busy.load();
  busy.send(raw_prompt(1, "~"));
  busy.receive<Piece>();
  EXPECT_EQ(busy.end(), 0);
}

TEST(Child, GivesUpOnGarbage) {
  Child child;
  child.send_bytes(make_frame("nonsense"));
  EXPECT_EQ(child.end(), 1);
}

// ---- The server's handle, with this executable as the child

Command this_test() {
  Command command;
  command.arguments = {"runner_test", "--runner-child"};
  command.environment = runner_environment(0);
  return command;
}

class Recorder final : public GenerateListener {
 public:
  void piece(Piece piece) override {
    text += piece.text;
    if (on_piece) on_piece();
  }
  void done(Done message) override { finished = std::move(message); }
  void failed(const Error& error) override { this->error = error; }

  std::string text;
  std::optional<Done> finished;
  std::optional<Error> error;
  std::function<void()> on_piece;
};

class ProcessRunnerTest : public testing::Test {
 protected:
  std::unique_ptr<Runner> start_loaded(const std::string& path = "model") {
    auto runner = factory_.start().value();
    loaded_.reset();
    runner->load({.path = path, .options = {}},
                 {.progress = [this](float fraction) { progress_.push_back(fraction); },
                  .done = [this](auto result) { loaded_ = std::move(result); }});
    run_until([this] { return loaded_.has_value(); });
    return runner;
  }
  template <typename Condition>
  void run_until(Condition condition) {
    loop_.restart();
    while (!condition() && loop_.run_one() > 0) {
    }
    ASSERT_TRUE(condition());
  }
  Generate prompt(std::string text) { return raw_prompt(0, std::move(text)); }

  boost::asio::io_context loop_;
  ProcessRunnerFactory factory_{loop_, this_test(), {.patience = std::chrono::milliseconds(100)}};
  std::vector<float> progress_;
  std::optional<Result<engine::ModelInfo>> loaded_;
};

TEST_F(ProcessRunnerTest, LoadsAndAnswersSeveralAtOnce) {
  auto runner = start_loaded();
  ASSERT_TRUE(loaded_->has_value()) << loaded_->error().message();
  EXPECT_EQ((**loaded_).architecture, "fake");
  EXPECT_THAT(progress_, testing::ElementsAre(0.0F, 0.5F, 1.0F));
  auto one = std::make_shared<Recorder>();
  auto two = std::make_shared<Recorder>();
  runner->generate(prompt("hello"), one);
  runner->generate(prompt("world"), two);
  std::optional<std::vector<Token>> tokens;
  runner->tokenize({.id = 0, .text = "a"}, [&](auto result) { tokens = result.value(); });
  run_until([&] { return one->finished && two->finished && tokens; });
  EXPECT_EQ(one->text, "HELLO");
  EXPECT_EQ(two->text, "WORLD");
}

TEST_F(ProcessRunnerTest, LoadFailures) {
  start_loaded("missing");
  EXPECT_EQ(loaded_->error().code(), ErrorCode::kNotFound);
  start_loaded("assert");
  EXPECT_EQ(loaded_->error().code(), ErrorCode::kUnavailable);
  EXPECT_THAT(std::string(loaded_->error().message()), HasSubstr("GGML_ASSERT(loading)"));
}

TEST_F(ProcessRunnerTest, CancelEndsAnAnswer) {
  auto runner = start_loaded();
  auto endless = std::make_shared<Recorder>();
  const Id id = runner->generate(prompt("~"), endless);
  run_until([&] { return endless->text.size() > 3; });
  runner->cancel(id);
  run_until([&] { return endless->finished.has_value(); });
  EXPECT_EQ(endless->finished->reason, engine::DoneReason::kCancelled);
}

// Clients of a runner that dies hear of it at once, with the assertion that ended it.
TEST_F(ProcessRunnerTest, DeathFailsEverythingInFlight) {
  auto runner = start_loaded();
  auto endless = std::make_shared<Recorder>();
  auto fatal = std::make_shared<Recorder>();
  std::optional<Error> exit;
  runner->on_exit([&](const Error& error) { exit = error; });
  runner->generate(prompt("~"), endless);
  runner->generate(prompt("!"), fatal);
  run_until([&] { return exit.has_value(); });
  ASSERT_TRUE(endless->error && fatal->error);
  EXPECT_EQ(endless->error->code(), ErrorCode::kUnavailable);
  EXPECT_THAT(std::string(endless->error->message()), HasSubstr("GGML_ASSERT(false)"));
  // Late requests fail as well instead of waiting for ever.
  auto late = std::make_shared<Recorder>();
  runner->generate(prompt("x"), late);
  EXPECT_FALSE(late->error);
  run_until([&] { return late->error.has_value(); });
}

TEST_F(ProcessRunnerTest, StopsWhenAsked) {
  auto runner = start_loaded();
  std::optional<Error> exit;
  runner->on_exit([&](const Error& error) { exit = error; });
  auto endless = std::make_shared<Recorder>();
  runner->generate(prompt("~"), endless);
  runner->stop();
  run_until([&] { return exit.has_value(); });
  EXPECT_TRUE(endless->finished || endless->error);
  EXPECT_EQ(exit->message(), "the model was unloaded");
}

// A process that ignores both the message and SIGTERM is made to end.
TEST_F(ProcessRunnerTest, StopEscalates) {
  ProcessRunnerFactory stubborn(loop_, shell("trap '' TERM; while :; do sleep 0.05; done"),
                                {.patience = std::chrono::milliseconds(50)});
  auto runner = stubborn.start().value();
  std::optional<Error> exit;
  runner->on_exit([&](const Error& error) { exit = error; });
  runner->stop();
  run_until([&] { return exit.has_value(); });
  EXPECT_THAT(std::string(exit->message()), HasSubstr("signal 9"));
}

TEST_F(ProcessRunnerTest, GarbageFromTheRunnerEndsIt) {
  ProcessRunnerFactory babbler(loop_,
                               shell("echo 'no frame at all, and long enough' >&3; sleep 9"));
  auto runner = babbler.start().value();
  std::optional<Error> exit;
  runner->on_exit([&](const Error& error) { exit = error; });
  run_until([&] { return exit.has_value(); });
  EXPECT_EQ(exit->code(), ErrorCode::kUnavailable);
}

// Destroying the handle from within a callback is what a scheduler does; nothing may come
// afterwards.
TEST_F(ProcessRunnerTest, DestroyedInItsOwnCallback) {
  auto runner = start_loaded();
  const int pid = runner->pid();
  auto endless = std::make_shared<Recorder>();
  int pieces = 0;
  endless->on_piece = [&] {
    ++pieces;
    runner.reset();
  };
  runner->generate(prompt("~"), endless);
  loop_.restart();
  loop_.run();  // ends when the process has been reaped
  EXPECT_EQ(pieces, 1);
  EXPECT_FALSE(endless->error || endless->finished);
  EXPECT_NE(::kill(pid, 0), 0);
}

// The runner dies with the thread that started it, even when it is busy and its socket stays open.
TEST(ParentDeath, KillsTheRunner) {
  std::optional<Process> process;
  std::thread parent([&] {
    process = Process::start(this_test()).value();
    const std::string frame = encode(ToRunner(Load{.path = "slow", .options = {}}));
    EXPECT_GT(::write(process->socket().get(), frame.data(), frame.size()), 0);
    std::array<char, 10> buffer;
    EXPECT_GT(::read(process->socket().get(), buffer.data(), buffer.size()), 0);
  });
  parent.join();
  EXPECT_EQ(wait_for(*process).signal, SIGKILL);
}

// ---- A runner of one's own

TEST(LocalRunner, AnswersAndCancels) {
  std::vector<float> progress;
  auto runner = LocalRunner::load(
      {.path = "model", .options = {}}, [&](float fraction) { progress.push_back(fraction); },
      this_test());
  ASSERT_TRUE(runner.has_value()) << runner.error().message();
  EXPECT_FALSE(progress.empty());
  EXPECT_EQ(runner->info().architecture, "fake");
  std::string text;
  const auto append = [&](const Piece& piece) {
    text += piece.text;
    return text.size() < 5;
  };
  const auto whole = runner->generate(raw_prompt(0, "abc"), append);
  ASSERT_TRUE(whole.has_value());
  EXPECT_EQ(text, "ABC");
  EXPECT_EQ(whole->reason, engine::DoneReason::kStop);
  const auto stopped = runner->generate(raw_prompt(0, "~"), append);
  EXPECT_EQ(stopped.value().reason, engine::DoneReason::kCancelled);
  text.clear();
  const auto asked =
      runner->generate(raw_prompt(0, "~"), [](const Piece&) { return true; }, [] { return true; });
  EXPECT_EQ(asked.value().reason, engine::DoneReason::kCancelled);
  const auto fatal = runner->generate(raw_prompt(0, "!"), append);
  EXPECT_THAT(std::string(fatal.error().message()), HasSubstr("GGML_ASSERT"));
}

TEST(LocalRunner, LoadErrors) {
  EXPECT_EQ(LocalRunner::load({.path = "missing", .options = {}}, {}, this_test()).error().code(),
            ErrorCode::kNotFound);
  const auto died = LocalRunner::load({.path = "x", .options = {}}, {}, shell("exit 4"));
  EXPECT_THAT(std::string(died.error().message()), HasSubstr("exit status 4"));
}

}  // namespace
}  // namespace ollama::runner

namespace ollama::runner {
std::optional<int> serve_as_conversion_child(int argc, char** argv);  // conversion_test.cpp
}

int main(int argc, char** argv) {
  if (const auto code = ollama::runner::serve_as_fake_child(argc, argv)) return *code;
  if (const auto code = ollama::runner::serve_as_conversion_child(argc, argv)) return *code;
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

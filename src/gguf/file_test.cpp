#include "gguf/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include "base/log.h"
#include "base/unique_fd.h"
#include "gguf/parse.h"

namespace ollama::gguf {
namespace {

using ::testing::HasSubstr;

const std::string kData = OLLAMA_TEST_DATA;

// Builds the bytes of a model file, right or wrong.
class Bytes {
 public:
  template <typename T>
  Bytes& number(T value) {
    const auto* bytes = reinterpret_cast<const char*>(&value);
    out_.append(bytes, sizeof value);
    return *this;
  }
  Bytes& u32(std::uint32_t value) { return number(value); }
  Bytes& u64(std::uint64_t value) { return number(value); }
  Bytes& raw(std::string_view text) {
    out_ += text;
    return *this;
  }
  Bytes& string(std::string_view text) { return u64(text.size()).raw(text); }
  Bytes& header(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    return raw("GGUF").u32(version).u64(tensors).u64(keys);
  }
  Bytes& key(std::string_view name, std::uint32_t type) { return string(name).u32(type); }
  Bytes& array(std::string_view name, std::uint32_t element, std::uint64_t count) {
    return key(name, GGUF_TYPE_ARRAY).u32(element).u64(count);
  }
  Bytes& tensor(std::string_view name, std::vector<std::uint64_t> dims, std::uint32_t type,
                std::uint64_t offset) {
    string(name).u32(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t dim : dims) u64(dim);
    return u32(type).u64(offset);
  }
  Bytes& pad(std::size_t alignment = 32) {
    out_.resize((out_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  Bytes& zeros(std::size_t count) {
    out_.append(count, '\0');
    return *this;
  }
  operator std::string_view() const { return out_; }  // NOLINT(google-explicit-constructor)

 private:
  std::string out_;
};

// A file in memory with a path to open it by.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content) : fd_(::memfd_create("gguf", MFD_CLOEXEC)) {
    assign(content);
  }
  void assign(std::string_view content) {
    EXPECT_EQ(::ftruncate(fd_.get(), 0), 0);
    EXPECT_EQ(::pwrite(fd_.get(), content.data(), content.size(), 0),
              static_cast<ssize_t>(content.size()));
  }
  void truncate(std::size_t size) {
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(size)), 0);
  }
  std::string path() const { return std::format("/proc/self/fd/{}", fd_.get()); }

 private:
  UniqueFd fd_;
};

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Uses everything an open file offers, so that a bad offset or size shows under a sanitizer.
std::size_t touch(const File& file) {
  std::size_t sum = file.parameter_count() + file_type_name(file).size();
  for (const auto& [key, value] : file.metadata()) {
    sum += file.u32(key).value_or(0) + file.string(key).value_or("").size();
    sum += file.strings(key).size() + file.i32s(key).size() + file.f32s(key).size();
    sum += file.bools(key).size() + file.f32(key).has_value() + file.i64(key).has_value();
  }
  for (const TensorInfo& tensor : file.tensors()) {
    const auto data = file.data(tensor);
    if (data)
      sum += static_cast<std::size_t>(data->front()) + static_cast<std::size_t>(data->back());
  }
  return sum;
}

class Quiet : public ::testing::Environment {
 public:
  void SetUp() override { log::set_level(log::Level::kOff); }
};
[[maybe_unused]] const auto* const kQuiet =
    ::testing::AddGlobalTestEnvironment(std::make_unique<Quiet>().release());  // GoogleTest owns it

struct GgmlContext {
  explicit GgmlContext(const std::string& path)
      : gguf(gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr})) {}
  GgmlContext(const GgmlContext&) = delete;
  GgmlContext& operator=(const GgmlContext&) = delete;
  ~GgmlContext() { gguf_free(gguf); }
  gguf_context* gguf;
};

class GoodFile : public ::testing::TestWithParam<std::string> {};

// Fails when we read a good file otherwise than GGML does.
TEST_P(GoodFile, AgreesWithGgml) {
  const std::string path = kData + GetParam();
  const auto file = File::open(path);
  ASSERT_TRUE(file) << file.error().message();
  const GgmlContext ggml(path);
  ASSERT_TRUE(ggml.gguf);
  EXPECT_EQ(file->version(), gguf_get_version(ggml.gguf));
  ASSERT_EQ(file->metadata().size(), static_cast<std::size_t>(gguf_get_n_kv(ggml.gguf)));
  for (const auto& [key, value] : file->metadata()) {
    const auto id = gguf_find_key(ggml.gguf, key.c_str());
    ASSERT_GE(id, 0) << key;
    const auto type = file->value_type(key);
    ASSERT_TRUE(type);
    EXPECT_EQ(type->type, gguf_get_kv_type(ggml.gguf, id)) << key;
    switch (type->type) {
      case GGUF_TYPE_UINT32:
        EXPECT_EQ(file->u32(key), gguf_get_val_u32(ggml.gguf, id)) << key;
        break;
      case GGUF_TYPE_FLOAT32:
        EXPECT_EQ(file->f32(key), gguf_get_val_f32(ggml.gguf, id)) << key;
        break;
      case GGUF_TYPE_BOOL:
        EXPECT_EQ(file->boolean(key), gguf_get_val_bool(ggml.gguf, id)) << key;
        break;
      case GGUF_TYPE_STRING:
        EXPECT_EQ(file->string(key), gguf_get_val_str(ggml.gguf, id)) << key;
        break;
      case GGUF_TYPE_ARRAY: {
        EXPECT_EQ(type->element, gguf_get_arr_type(ggml.gguf, id));
        const std::size_t count = gguf_get_arr_n(ggml.gguf, id);
        if (type->element == GGUF_TYPE_STRING) {
          const auto strings = file->strings(key);
          ASSERT_EQ(strings.size(), count);
          for (std::size_t i = 0; i < count; ++i)
            ASSERT_EQ(strings[i], gguf_get_arr_str(ggml.gguf, id, i));
        } else if (type->element == GGUF_TYPE_FLOAT32) {
          const auto* data = static_cast<const float*>(gguf_get_arr_data(ggml.gguf, id));
          EXPECT_EQ(file->f32s(key), std::vector<float>(data, data + count)) << key;
        } else if (type->element == GGUF_TYPE_INT32) {
          const auto* data = static_cast<const std::int32_t*>(gguf_get_arr_data(ggml.gguf, id));
          EXPECT_EQ(file->i32s(key), std::vector<std::int32_t>(data, data + count)) << key;
        }
        break;
      }
      default:
        break;
    }
  }

  ASSERT_EQ(file->tensors().size(), static_cast<std::size_t>(gguf_get_n_tensors(ggml.gguf)));
  for (std::size_t i = 0; i < file->tensors().size(); ++i) {
    const TensorInfo& tensor = file->tensors()[i];
    const auto id = static_cast<std::int64_t>(i);
    EXPECT_EQ(tensor.name, gguf_get_tensor_name(ggml.gguf, id));
    EXPECT_EQ(tensor.type, gguf_get_tensor_type(ggml.gguf, id)) << tensor.name;
    EXPECT_EQ(tensor.size, gguf_get_tensor_size(ggml.gguf, id)) << tensor.name;
    EXPECT_EQ(tensor.offset,
              gguf_get_data_offset(ggml.gguf) + gguf_get_tensor_offset(ggml.gguf, id));
    const std::int64_t* ne = gguf_get_tensor_ne(ggml.gguf, id);
    EXPECT_TRUE(std::ranges::equal(tensor.shape, std::span(ne, 4))) << tensor.name;
    EXPECT_EQ(file->find_tensor(tensor.name), &tensor);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoodFile,
                         ::testing::Values("/models/stories260K-f16.gguf",
                                           "/models/stories260K-f32.gguf", "/arch/llama.gguf"));

// Fails when typed reads or the architecture prefix break for the model that is shipped.
TEST(File, ReadsABundledModel) {
  const auto file = File::open(kData + "/models/stories260K-f16.gguf");
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->architecture(), "llama");
  EXPECT_EQ(file->require_u32(".block_count"), 5U);
  EXPECT_EQ(file->u32("llama.block_count"), 5U);
  EXPECT_EQ(file->require_u32(".embedding_length"), 64U);
  EXPECT_EQ(file->i32s(".block_count"), std::vector<std::int32_t>{5});
  EXPECT_FLOAT_EQ(file->require_f32(".attention.layer_norm_rms_epsilon").value(), 1e-5F);
  EXPECT_EQ(file->strings("tokenizer.ggml.tokens").size(), 512U);
  EXPECT_EQ(file_type_name(*file), "F16");
  EXPECT_EQ(file->find_tensor("no such tensor"), nullptr);

  EXPECT_THAT(std::string(file->require_u32(".no_such_key").error().message()),
              HasSubstr("missing key llama.no_such_key"));
  EXPECT_THAT(std::string(file->require_u32("general.architecture").error().message()),
              HasSubstr("general.architecture: expected a whole number"));
  // A wrong type counts as missing for the lenient reads.
  EXPECT_EQ(file->u32("general.architecture"), std::nullopt);
  EXPECT_EQ(file->string(".block_count"), std::nullopt);
  EXPECT_TRUE(file->strings(".block_count").empty());
}

// Fails when tensor data is taken from the wrong place in the file, or is mapped more than once.
TEST(File, MapsTensorDataOnce) {
  const std::string path = kData + "/models/stories260K-f32.gguf";
  const std::string content = read_file(path);
  auto opened = File::open(path);
  ASSERT_TRUE(opened);
  const File file = std::move(*opened);
  std::vector<const std::byte*> seen(8);
  {
    std::vector<std::jthread> threads;
    for (const std::byte*& pointer : seen)
      threads.emplace_back([&] { pointer = file.data(file.tensors()[0])->data(); });
  }
  EXPECT_EQ(std::set(seen.begin(), seen.end()).size(), 1U);
  for (const TensorInfo& tensor : file.tensors()) {
    const auto data = file.data(tensor);
    ASSERT_TRUE(data);
    ASSERT_EQ(data->size(), tensor.size);
    EXPECT_EQ(std::memcmp(data->data(), content.data() + tensor.offset, tensor.size), 0)
        << tensor.name;
  }
  EXPECT_EQ(file.mapping()->size(), content.size());
}

// Fails when a file that shrank after it was opened would end the process with SIGBUS on first use.
TEST(File, RefusesToMapAFileThatShrank) {
  const std::string content = read_file(kData + "/models/stories260K-f16.gguf");
  MemoryFile memory(content);
  const auto file = File::open(memory.path());
  ASSERT_TRUE(file);
  memory.truncate(content.size() / 2);
  const auto data = file->data(file->tensors()[0]);
  ASSERT_FALSE(data);
  EXPECT_THAT(std::string(data.error().message()), HasSubstr("became shorter"));
  EXPECT_FALSE(file->mapping()) << "the first outcome is kept";
}

TEST(File, ReportsFilesThatCannotBeOpened) {
  EXPECT_EQ(File::open("/no/such/model.gguf").error().code(), ErrorCode::kNotFound);
  const auto folder = File::open("/tmp");
  EXPECT_EQ(folder.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(folder.error().message()), HasSubstr("/tmp: not a regular file"));
}

// Fails when one of the format's value types is read wrongly, or loses its range or its type.
TEST(File, ReadsEveryValueType) {
  Bytes bytes;
  bytes.header(0, 18);
  bytes.key("u8", GGUF_TYPE_UINT8).number<std::uint8_t>(255);
  bytes.key("i8", GGUF_TYPE_INT8).number<std::int8_t>(-128);
  bytes.key("u16", GGUF_TYPE_UINT16).number<std::uint16_t>(65535);
  bytes.key("i16", GGUF_TYPE_INT16).number<std::int16_t>(-32768);
  bytes.key("u32", GGUF_TYPE_UINT32).u32(4294967295U);
  bytes.key("i32", GGUF_TYPE_INT32).number<std::int32_t>(-5);
  bytes.key("f32", GGUF_TYPE_FLOAT32).number(1.5F);
  bytes.key("bool", GGUF_TYPE_BOOL).number<std::uint8_t>(1);
  bytes.key("string", GGUF_TYPE_STRING).string(std::string_view("a\0b", 3));
  bytes.key("u64", GGUF_TYPE_UINT64).u64(~0ULL);
  bytes.key("i64", GGUF_TYPE_INT64).number<std::int64_t>(-1);
  bytes.key("f64", GGUF_TYPE_FLOAT64).number(1e300);
  bytes.array("u8s", GGUF_TYPE_UINT8, 2).number<std::uint8_t>(1).number<std::uint8_t>(200);
  bytes.array("bools", GGUF_TYPE_BOOL, 3).raw(std::string_view("\1\0\1", 3));
  bytes.array("strings", GGUF_TYPE_STRING, 2).string("x").string("");
  bytes.array("f64s", GGUF_TYPE_FLOAT64, 1).number(0.25);
  bytes.array("u32s", GGUF_TYPE_UINT32, 1).u32(4294967295U);
  bytes.array("none", GGUF_TYPE_STRING, 0);
  const MemoryFile memory(bytes);
  const auto file = File::open(memory.path());
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->u32("u8"), 255U);
  EXPECT_EQ(file->i64("i8"), -128);
  EXPECT_EQ(file->u32("i8"), std::nullopt) << "negative";
  EXPECT_EQ(file->u32("u16"), 65535U);
  EXPECT_EQ(file->i64("i16"), -32768);
  EXPECT_EQ(file->u32("u32"), 4294967295U);
  EXPECT_EQ(file->i32s("i32"), std::vector<std::int32_t>{-5});
  EXPECT_EQ(file->f32("f32"), 1.5F);
  EXPECT_EQ(file->f32("i32"), -5.0F);
  EXPECT_EQ(file->boolean("bool"), true);
  EXPECT_EQ(file->string("string"), std::string_view("a\0b", 3));
  EXPECT_EQ(std::get<std::uint64_t>(*file->find("u64")), ~0ULL);
  EXPECT_EQ(file->i64("u64"), std::nullopt);
  EXPECT_EQ(file->i64("i64"), -1);
  EXPECT_EQ(file->f32("f64"), std::nullopt) << "beyond a float";
  EXPECT_EQ(std::get<double>(*file->find("f64")), 1e300);
  EXPECT_EQ(file->i32s("u8s"), (std::vector<std::int32_t>{1, 200}));
  EXPECT_EQ(file->f32s("u8s"), (std::vector<float>{1, 200}));
  EXPECT_EQ(file->bools("bools"), (std::vector<bool>{true, false, true}));
  EXPECT_EQ(file->bools("bool"), std::vector<bool>{true});
  EXPECT_THAT(file->strings("strings"), ::testing::ElementsAre("x", ""));
  EXPECT_EQ(file->f32s("f64s"), std::vector<float>{0.25F});
  EXPECT_TRUE(file->i32s("u32s").empty()) << "out of range";
  EXPECT_EQ(file->value_type("u8s"), (ValueType{GGUF_TYPE_ARRAY, GGUF_TYPE_UINT8}));
  EXPECT_EQ(file->value_type("missing"), std::nullopt);
  EXPECT_EQ(file->architecture(), "");
}

struct Hostile {
  std::string name;
  std::string bytes;
  std::string error;

  friend std::ostream& operator<<(std::ostream& out, const Hostile& file) {
    return out << file.name;
  }
};

Bytes one_tensor(std::vector<std::uint64_t> dims, std::uint32_t type, std::uint64_t offset,
                 std::size_t data = 4096) {
  Bytes bytes;
  bytes.header(1, 0).tensor("w", std::move(dims), type, offset).pad().zeros(data);
  return bytes;
}

std::vector<Hostile> hostile_files() {
  constexpr std::uint32_t kF32 = GGML_TYPE_F32;
  constexpr std::uint64_t kHuge = 1ULL << 62;
  std::vector<Hostile> files;
  const auto add = [&files](std::string name, std::string_view bytes, std::string error) {
    files.push_back({std::move(name), std::string(bytes), std::move(error)});
  };
  const auto metadata = [](std::uint64_t count = 1) {
    Bytes bytes;
    bytes.header(0, count);
    return bytes;
  };
  add("Empty", "", "not a GGUF file: it has only 0 bytes");
  add("OtherMagic", "PK\3\4................", "not a GGUF file: it begins with 'PK\\x03\\x04'");
  add("BeforeGguf", "tjgg....................", "from before GGUF");
  add("OnlyMagic", "GGUF", "the file ends inside its header");
  add("Version1", Bytes().header(0, 0, 1), "GGUF version 1 is not supported");
  add("Version4", Bytes().header(0, 0, 4), "GGUF version 4 is not supported");
  add("BigEndian", Bytes().header(0, 0, 3U << 24), "a big-endian GGUF file");
  add("TensorCount", Bytes().header(~0ULL, 0),
      "18446744073709551615 tensors cannot be in 24 bytes");
  add("KeyCount", Bytes().header(0, kHuge), "metadata keys cannot be in 24 bytes");
  add("KeyLength", metadata().u64(~0ULL).zeros(32),
      "metadata key 0: a string of 18446744073709551615");
  add("KeyTooLong", metadata().string(std::string(70000, 'k')).zeros(64),
      "at most 65535 are allowed");
  add("EmptyKey", metadata().key("", GGUF_TYPE_UINT8).zeros(8), "metadata key 0: '' is not a key");
  add("NulInKey", metadata().key(std::string_view("a\0", 2), GGUF_TYPE_UINT8).zeros(8),
      "metadata key 0: 'a\\x00' is not a key");
  add("ValueType", metadata().key("k", 13).zeros(8), "k: value type 13 does not exist");
  add("CutValue", metadata().key("k", GGUF_TYPE_UINT64).u32(0),
      "k: the file ends inside its header");
  add("CutString", metadata().key("k", GGUF_TYPE_STRING).u64(100).raw("short"),
      "k: a string of 100 bytes, with 5 left in the file");
  add("NestedArray", metadata().array("k", GGUF_TYPE_ARRAY, 1).zeros(64), "k: arrays of arrays");
  add("ArrayType", metadata().array("k", 77, 1).zeros(64), "k: value type 77 does not exist");
  add("ArrayCount", metadata().array("k", GGUF_TYPE_UINT8, 1000).zeros(10),
      "k: an array of 1000 elements, with 10 bytes left");
  add("ArrayCountOverflow", metadata().array("k", GGUF_TYPE_UINT64, (1ULL << 61) + 1).zeros(64),
      "k: an array of 2305843009213693953 elements, with 64 bytes left");
  add("FourBillionEmptyStrings", metadata().array("k", GGUF_TYPE_STRING, 1ULL << 32).zeros(4096),
      "k: an array of 4294967296 elements, with 4096 bytes left");
  add("StringInArray", metadata().array("k", GGUF_TYPE_STRING, 2).string("x").u64(kHuge),
      "k: element 1: a string of 4611686018427387904 bytes");
  add("HugeArrayElement", metadata().array("k", GGUF_TYPE_UINT64, 1).u64(~0ULL), "above 2^63 - 1");
  add("DuplicateKey",
      metadata(2).key("k", GGUF_TYPE_UINT8).zeros(1).key("k", GGUF_TYPE_UINT8).zeros(1),
      "k: this metadata key is there twice");
  add("ArchitectureType", metadata().key("general.architecture", GGUF_TYPE_UINT32).u32(1),
      "general.architecture: expected a string");
  for (const std::uint32_t alignment : {0U, 4U, 33U, 1U << 21}) {
    add(std::format("Alignment{}", alignment),
        metadata().key("general.alignment", GGUF_TYPE_UINT32).u32(alignment),
        std::format("general.alignment: {} is not a power of two", alignment));
  }
  add("AlignmentType", metadata().key("general.alignment", GGUF_TYPE_STRING).string("32"),
      "general.alignment: expected a number");
  add("NegativeAlignment",
      metadata().key("general.alignment", GGUF_TYPE_INT64).number(std::int64_t{INT64_MIN}),
      "is not a power of two");

  add("NoDimensions", one_tensor({}, kF32, 0), "w: 0 dimensions, where 1 to 4 are allowed");
  add("FiveDimensions", one_tensor({1, 1, 1, 1, 1}, kF32, 0), "w: 5 dimensions");
  add("ZeroDimension", one_tensor({4, 0}, kF32, 0), "w: dimension 1 is 0");
  add("NegativeDimension", one_tensor({~0ULL}, kF32, 0), "w: dimension 0 is -1");
  add("ProductOverflow", one_tensor({1ULL << 32, 1ULL << 32}, kF32, 0), "dimensions overflows");
  add("SizeOverflow", one_tensor({kHuge}, kF32, 0), "w: its size in bytes overflows");
  add("UnknownType", one_tensor({32}, 1000, 0), "w: tensor type 1000 is not one that GGML");
  add("RemovedType", one_tensor({32}, 4, 0), "w: tensor type 4 is not one that GGML");
  add("LargestType", one_tensor({32}, 0xffffffff, 0), "w: tensor type 4294967295 is not");
  add("BlockSize", one_tensor({33}, GGML_TYPE_Q4_0, 0),
      "a row of 33 elements is not a whole number of");
  add("Misaligned", one_tensor({4}, kF32, 8), "w: its offset 8 is not a multiple of the file's");
  add("BeyondTheFile", one_tensor({2048}, kF32, 0, 4096),
      "w: data ends at 8256, beyond the file's 4160");
  add("OffsetOverflow", one_tensor({4}, kF32, ~0ULL - 31), "overflows");
  add("EndOverflow", one_tensor({64}, kF32, (~0ULL << 5) - 64), "overflows");
  add("TensorName", Bytes().header(1, 0).tensor(std::string(64, 'n'), {4}, kF32, 0).zeros(64),
      "name of tensor 0: a string of 64 bytes, where at most 63 are allowed");
  add("EmptyTensorName", Bytes().header(1, 0).tensor("", {4}, kF32, 0).zeros(64),
      "name of tensor 0: '' is not a name");
  add("DuplicateTensor",
      Bytes().header(2, 0).tensor("w", {4}, kF32, 0).tensor("w", {4}, kF32, 32).pad().zeros(96),
      "w: this tensor is there twice");
  add("Overlap",
      Bytes().header(2, 0).tensor("b", {16}, kF32, 32).tensor("a", {9}, kF32, 0).pad().zeros(256),
      "b: its data overlaps that of a");
  add("EscapesNames", metadata().key("\x1b[2J", 13).zeros(8), "\\x1b[2J: value type 13");
  return files;
}

class HostileFile : public ::testing::TestWithParam<Hostile> {};

// Fails when a malformed file is accepted, or is refused for another reason than its fault.
TEST_P(HostileFile, IsRefused) {
  const MemoryFile memory(GetParam().bytes);
  const auto file = File::open(memory.path());
  ASSERT_FALSE(file);
  EXPECT_THAT(std::string(file.error().message()), HasSubstr(GetParam().error));
  EXPECT_TRUE(file.error().code() == ErrorCode::kCorrupt ||
              file.error().code() == ErrorCode::kUnsupported);
}

INSTANTIATE_TEST_SUITE_P(Table, HostileFile, ::testing::ValuesIn(hostile_files()),
                         [](const auto& param) { return param.param.name; });

// Fails when the limits let a sparse file of any size make the reader allocate without end.
TEST(File, BoundsWhatASparseFileCanClaim) {
  MemoryFile memory(Bytes().header(0, 1).array("k", GGUF_TYPE_STRING, 1ULL << 32));
  memory.truncate(1ULL << 40);
  auto file = File::open(memory.path());
  ASSERT_FALSE(file);
  EXPECT_THAT(std::string(file.error().message()), HasSubstr("headers are read up to 256 MiB"));

  memory.assign(Bytes().header(0, 1).array("k", GGUF_TYPE_STRING, kMaxArrayElements + 1));
  memory.truncate(1ULL << 40);
  file = File::open(memory.path());
  ASSERT_FALSE(file);
  EXPECT_THAT(std::string(file.error().message()), HasSubstr("array elements in one file"));

  memory.assign(Bytes().header(1ULL << 30, 0));
  memory.truncate(1ULL << 40);
  file = File::open(memory.path());
  ASSERT_FALSE(file);
  EXPECT_THAT(std::string(file.error().message()), HasSubstr("tensors cannot be in"));
}

// Fails when tensors that only touch each other, or come in another order than their data, are
// refused.
TEST(File, AcceptsAdjacentTensorsInAnyOrder) {
  const MemoryFile memory(Bytes()
                              .header(2, 1, 2)
                              .key("general.alignment", GGUF_TYPE_UINT32)
                              .u32(64)
                              .tensor("b", {16}, GGML_TYPE_F32, 64)
                              .tensor("a", {8, 2}, GGML_TYPE_F32, 0)
                              .pad(64)
                              .zeros(128));
  const auto file = File::open(memory.path());
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->tensors()[0].name, "b");
  EXPECT_EQ(file->tensors()[0].offset, file->tensors()[1].offset + 64);
  EXPECT_EQ(file->tensors()[1].offset % 64, 0U);
  EXPECT_EQ(file->tensors()[1].n_dims, 2);
  EXPECT_EQ(file->parameter_count(), 32U);
  EXPECT_EQ(file_type_name(*file), "F32");
}

// Fails when Ollama's MXFP4 tensors are refused, or lose the mark that their blocks need
// reordering.
TEST(File, MarksOllamasMxfp4) {
  const auto make = [](std::string_view architecture) {
    return Bytes()
        .header(1, 1)
        .key("general.architecture", GGUF_TYPE_STRING)
        .string(architecture)
        .tensor("blk.0.ffn_gate_exps.weight", {64, 2, 3}, 4, 0)
        .pad()
        .zeros(2 * 3 * 2 * 17);
  };
  const MemoryFile memory(make("gptoss"));
  const auto file = File::open(memory.path());
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->architecture(), "gpt-oss");
  EXPECT_EQ(file->tensors()[0].type, GGML_TYPE_MXFP4);
  EXPECT_TRUE(file->tensors()[0].ollama_mxfp4);
  EXPECT_EQ(file->tensors()[0].size, 204U);
  EXPECT_EQ(file->u32(".expert_feed_forward_length"), 2U);
  const MemoryFile other(make("llama"));
  EXPECT_EQ(File::open(other.path()).error().code(), ErrorCode::kUnsupported);
}

// Fails when a file cut anywhere is accepted, or crashes the reader.
TEST(File, RefusesAFileCutAnywhereInItsHeader) {
  const std::string content = read_file(kData + "/models/stories260K-f16.gguf");
  MemoryFile memory(content);
  const std::size_t data = File::open(memory.path())->tensors()[0].offset;
  for (std::size_t size = 0; size <= data; ++size) {
    // From the far end down, as truncation cannot be undone.
    memory.truncate(data - size);
    const auto file = File::open(memory.path());
    ASSERT_FALSE(file) << "cut at " << data - size;
  }
}

// Fails when changed bytes crash the reader, or let it accept tensors outside the file.
TEST(File, SurvivesFlippedBytes) {
  const std::string content = read_file(kData + "/models/stories260K-f16.gguf");
  MemoryFile memory(content);
  const std::size_t data = File::open(memory.path())->tensors()[0].offset;
  std::mt19937 random(20240607);
  std::size_t accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string changed = content;
    const int flips = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < flips; ++i)
      changed[random() % data] = static_cast<char>(random() % 3 == 0 ? 0xff : random());
    memory.assign(changed);
    const auto file = File::open(memory.path());
    if (!file) {
      EXPECT_FALSE(file.error().message().empty());
      continue;
    }
    ++accepted;
    EXPECT_GT(touch(*file), 0U);
    for (const TensorInfo& tensor : file->tensors())
      ASSERT_LE(tensor.offset + tensor.size, file->file_size());
  }
  EXPECT_GT(accepted, 0U) << "nothing was read, so nothing was tested";
}

}  // namespace
}  // namespace ollama::gguf

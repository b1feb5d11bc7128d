// The values of tokenizer.ggml.pre that llama.cpp knows, and the patterns they stand for. Where
// llama.cpp's matcher differs from the pattern a model was published with, llama.cpp's reading is
// kept: it tells letters from marks but not upper from lower case outside ASCII.
#include <algorithm>

#include "tokenizer/pretokenizer.h"

namespace ollama::tokenizer {
namespace {

using Kind = SplitStep::Kind;

constexpr std::string_view kContraction =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]))";

// What follows kContraction in the patterns of the llama 3 and qwen 2 families.
constexpr std::string_view kLlama3Rest =
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Rest =
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35Rest =
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kJais2Rest =
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+)"
    R"(|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S))"
    R"(|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s)";
constexpr std::string_view kSeedCoderRest =
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kMiniCpm5Rest =
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words may hold single blanks. Written so that nothing is kept for going back.
constexpr std::string_view kExaoneMoeRest =
    R"(|[^\r\n\p{L}\p{N}]?\p{L}(?:[\p{L}\p{M}]++| \p{L})*+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?)"
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)";

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Letters but a to z, then letters but A to Z: words are cut where case rises.
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[^\P{L}a-z]*[^\P{L}A-Z]+|[^\r\n\p{L}\p{N}]?[^\P{L}a-z]+[^\P{L}A-Z]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"((?:[^\r\n\p{L}\p{N}]?[^\P{L}a-z]*[^\P{L}A-Z]+|[^\r\n\p{L}\p{N}]?[^\P{L}a-z]+[^\P{L}A-Z]*))"
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// The same with marks as part of words; what is neither letter nor mark is in one of the other five
// general categories.
constexpr std::string_view kGraniteMultilingual =
    R"((?:[^\r\n\p{L}\p{N}]?[^\p{N}\p{P}\p{S}\p{Z}\p{C}a-z]*[^\p{N}\p{P}\p{S}\p{Z}\p{C}A-Z]+)"
    R"(|[^\r\n\p{L}\p{N}]?[^\p{N}\p{P}\p{S}\p{Z}\p{C}a-z]+[^\p{N}\p{P}\p{S}\p{Z}\p{C}A-Z]*))"
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words of letters and marks with a contraction at the end.
constexpr std::string_view kMarkedWords = R"([^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+)";
constexpr std::string_view kTinyAyaRest =
    R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kYoutuRest =
    R"(?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::string_view kThreeNumbers = R"(\p{N}{1,3})";
constexpr std::string_view kOneNumber = R"(\p{N})";
constexpr std::string_view kHanKana = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
constexpr std::string_view kDeepseekWords =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)";
constexpr std::string_view kDeepseekRest = R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSparkRest = R"(| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)";

// Cased letters of the Unicode version that the vocabulary was made with.
constexpr std::string_view kDeepseekCased =
    R"(\s?[A-Za-z\xB5\xC0-\xD6\xD8-\xF6\xF8-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C})"
    R"(\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556})"
    R"(\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF})"
    R"(\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D})";
constexpr std::string_view kDeepseekCased2 =
    R"(\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D})"
    R"(\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4})"
    R"(\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4})"
    R"(\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
    R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F})"
    R"(\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})";
constexpr std::string_view kDeepseekCased3 =
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F})"
    R"(\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17})"
    R"(\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3})"
    R"(\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF})"
    R"(\x{1E900}-\x{1E943}]+)";
constexpr std::string_view kDeepseekPunctuation =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
// The look-behind keeps a long run of blanks that is not the end from being tried at each of them.
constexpr std::string_view kBlanksAtEnd = R"((?<!\s)\s+\z)";
constexpr std::string_view kDeepseekCjk =
    R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";

// Bloom's family cuts at blanks and at these signs; `(`, `)` and `|` are in the set as published.
constexpr std::string_view kBloom =
    R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+)";

constexpr std::string_view kAsianScripts =
    R"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF})"
    R"(\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E00}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF})"
    R"(\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+)";
constexpr std::string_view kYoutuScripts =
    R"([\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+)"
    R"(|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C})"
    R"(\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+)"
    R"(|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";

// Han characters apart from other letters.
constexpr std::string_view kKimiHan =
    R"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F})"
    R"(\x{2B740}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]+|[^\r\n\p{L}\p{N}]?)"
    R"([^\P{L}\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F})"
    R"(\x{2B740}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]+)";
constexpr std::string_view kKimiRest =
    R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::string_view kPunctuation = R"([\p{P}$+<=>^~|]+)";
constexpr std::string_view kPunctuationGrave = R"([\p{P}$+<=>^~|`]+)";
constexpr std::string_view kThreeDigits = "[0-9][0-9][0-9]";
constexpr std::string_view kLines = R"([^\n]+|\n+)";

constexpr SplitStep kDefaultSteps[] = {
    {{kPunctuation}}, {{kGpt2}}, {{R"(\p{N}+)"}}, {{kThreeDigits}}};
constexpr SplitStep kGpt2Steps[] = {{{kGpt2}}};
constexpr SplitStep kDigitGpt2Steps[] = {{{kOneNumber}}, {{kGpt2}}};
constexpr SplitStep kFalconSteps[] = {{{kPunctuationGrave}}, {{kGpt2}}, {{kThreeDigits}}};
constexpr SplitStep kLlama3Steps[] = {{{kContraction, kLlama3Rest}}};
constexpr SplitStep kQwen2Steps[] = {{{kContraction, kQwen2Rest}}};
constexpr SplitStep kQwen35Steps[] = {{{kContraction, kQwen35Rest}}};
constexpr SplitStep kJais2Steps[] = {{{kContraction, kJais2Rest}}};
constexpr SplitStep kSeedCoderSteps[] = {{{kContraction, kSeedCoderRest}}};
constexpr SplitStep kExaoneMoeSteps[] = {{{kContraction, kExaoneMoeRest}}};
constexpr SplitStep kMiniCpm5Steps[] = {{{kThreeNumbers}}, {{kContraction, kMiniCpm5Rest}}};
constexpr SplitStep kUfakzekaSteps[] = {{{kQwen2Rest.substr(1)}}};
constexpr SplitStep kLagunaSteps[] = {{{kLines}}, {{kContraction, kQwen2Rest}}};
constexpr SplitStep kTekkenSteps[] = {{{kTekken}}};
constexpr SplitStep kGpt4oSteps[] = {{{kGpt4o}}};
constexpr SplitStep kGraniteMultilingualSteps[] = {{{kGraniteMultilingual}}};
constexpr SplitStep kTinyAyaSteps[] = {{.kind = Kind::kNumbersInThrees},
                                       {{kMarkedWords, kContraction, kTinyAyaRest}}};
constexpr SplitStep kYoutuSteps[] = {{{kYoutuScripts}}, {{kMarkedWords, kContraction, kYoutuRest}}};
constexpr SplitStep kDeepseekLlmSteps[] = {
    {{R"([\r\n])"}},          {{kDeepseekCased, kDeepseekCased2, kDeepseekCased3}},
    {{kDeepseekPunctuation}}, {{kBlanksAtEnd}},
    {{kDeepseekCjk}},         {{R"(\p{N}+)"}}};
constexpr SplitStep kDeepseekCoderSteps[] = {
    {{R"([\r\n])"}}, {{R"(\s?\p{L}+)"}}, {{R"(\s?\p{P}+)"}}, {{kDeepseekCjk}}, {{kOneNumber}}};
constexpr SplitStep kDeepseekV3Steps[] = {
    {{kThreeNumbers}}, {{kHanKana}}, {{kDeepseekWords, kDeepseekRest}}};
constexpr SplitStep kSparkSteps[] = {
    {{kThreeNumbers}}, {{kHanKana}}, {{kDeepseekWords, kSparkRest}}, {{kOneNumber}}};
constexpr SplitStep kBloomSteps[] = {{{kBloom}}};
constexpr SplitStep kVikingSteps[] = {{{kBloom}}, {{kOneNumber}}};
constexpr SplitStep kChameleonSteps[] = {{{"<sentinel:[0-9]+>"}},       {{"IMGIMG[A-I]{1,4}Z"}},
                                         {{R"([\t\n]|    |  )"}},       {{kOneNumber}},
                                         {{R"([\p{P}!-/:-@\[-`{-~])"}}, {{kGpt2}}};
constexpr SplitStep kKimiSteps[] = {{{kKimiHan, kContraction, kKimiRest}}};
constexpr SplitStep kSuperBpeSteps[] = {{{R"(\p{N}+)"}}, {.kind = Kind::kDigitsInThrees}};
constexpr SplitStep kBailingSteps[] = {
    {{R"('(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})",
      R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"}}};
constexpr SplitStep kAfmoeSteps[] = {
    {.kind = Kind::kNumbersInThrees}, {{kAsianScripts}}, {{kDeepseekWords, kDeepseekRest}}};
constexpr SplitStep kLineSteps[] = {{{kLines}}};
constexpr SplitStep kWordSteps[] = {{{R"(\S+)"}}};

struct Entry {
  std::string_view name;
  PretokenizerSpec spec;
};

constexpr PretokenizerSpec kLlama3Spec{.steps = kLlama3Steps, .whole_words = true, .add_bos = true};
constexpr PretokenizerSpec kGemma4Spec{
    .steps = kLineSteps, .add_bos = true, .raw = true, .blank_symbol = true, .newline_words = true};

constexpr Entry kEntries[] = {
    {"", {.steps = kDefaultSteps}},
    {"default", {.steps = kDefaultSteps}},

    {"llama3", kLlama3Spec},
    {"llama-v3", kLlama3Spec},
    {"llama-bpe", kLlama3Spec},
    {"falcon3", kLlama3Spec},
    {"falcon-h1", kLlama3Spec},
    {"pixtral", kLlama3Spec},
    {"midm-2.0", kLlama3Spec},
    {"lfm2", kLlama3Spec},
    {"jina-v5-nano", kLlama3Spec},
    {"dbrx", {.steps = kLlama3Steps}},
    {"smaug-bpe", {.steps = kLlama3Steps}},
    {"glm4", {.steps = kLlama3Steps}},
    {"chatglm-bpe", {.steps = kLlama3Steps}},
    {"jais-2", {.steps = kJais2Steps}},
    {"minicpm5", {.steps = kMiniCpm5Steps, .whole_words = true}},

    {"qwen2", {.steps = kQwen2Steps}},
    {"deepseek-r1-qwen", {.steps = kQwen2Steps}},
    {"kormo", {.steps = kQwen2Steps}},
    {"f2llmv2", {.steps = kQwen2Steps}},
    {"megrez", {.steps = kQwen2Steps}},
    {"stablelm2", {.steps = kQwen2Steps}},
    {"hunyuan", {.steps = kQwen2Steps}},
    {"solar-open", {.steps = kQwen2Steps}},
    {"grok-2", {.steps = kQwen2Steps}},
    {"qwen35", {.steps = kQwen35Steps}},
    {"seed-coder", {.steps = kSeedCoderSteps}},
    {"bailingmoe", {.steps = kBailingSteps}},
    {"bailingmoe2", {.steps = kBailingSteps}},
    {"llada-moe", {.steps = kBailingSteps}},
    {"exaone-moe", {.steps = kExaoneMoeSteps}},
    {"ufakzeka", {.steps = kUfakzekaSteps}},
    {"laguna", {.steps = kLagunaSteps}},

    {"gpt-2", {.steps = kGpt2Steps}},
    {"phi-2", {.steps = kGpt2Steps}},
    {"jina-es", {.steps = kGpt2Steps}},
    {"jina-de", {.steps = kGpt2Steps}},
    {"jina-v2-es", {.steps = kGpt2Steps}},
    {"jina-v2-de", {.steps = kGpt2Steps}},
    {"jina-v1-en", {.steps = kGpt2Steps}},
    {"jina-v2-code", {.steps = kGpt2Steps}},
    {"roberta-bpe", {.steps = kGpt2Steps}},
    {"gigachat", {.steps = kGpt2Steps}},
    {"a.x-4.0", {.steps = kGpt2Steps}},
    {"mellum", {.steps = kGpt2Steps}},
    {"modern-bert", {.steps = kGpt2Steps}},
    {"exaone4", {.steps = kGpt2Steps}},
    {"mpt", {.steps = kGpt2Steps}},
    {"olmo", {.steps = kGpt2Steps}},
    {"jais", {.steps = kGpt2Steps}},
    {"trillion", {.steps = kGpt2Steps}},
    {"granite-docling", {.steps = kGpt2Steps}},

    {"starcoder", {.steps = kDigitGpt2Steps}},
    {"refact", {.steps = kDigitGpt2Steps}},
    {"command-r", {.steps = kDigitGpt2Steps}},
    {"smollm", {.steps = kDigitGpt2Steps}},
    {"codeshell", {.steps = kDigitGpt2Steps}},
    {"exaone", {.steps = kDigitGpt2Steps}},
    {"minerva-7b", {.steps = kDigitGpt2Steps}},
    {"mellum2", {.steps = kDigitGpt2Steps}},

    {"falcon", {.steps = kFalconSteps}},
    {"deepseek-llm", {.steps = kDeepseekLlmSteps}},
    {"deepseek-coder", {.steps = kDeepseekCoderSteps}},
    {"deepseek-v3", {.steps = kDeepseekV3Steps}},
    {"hunyuan-dense", {.steps = kDeepseekV3Steps}},
    {"hy_v4", {.steps = kDeepseekV3Steps}},
    {"joyai-llm", {.steps = kDeepseekV3Steps}},
    {"spark2_5", {.steps = kSparkSteps}},
    {"youtu", {.steps = kYoutuSteps, .whole_words = true}},

    {"tekken", {.steps = kTekkenSteps, .whole_words = true, .add_bos = true}},
    {"gpt-4o", {.steps = kGpt4oSteps}},
    {"llama4", {.steps = kGpt4oSteps}},
    {"kanana2", {.steps = kGpt4oSteps}},
    {"talkie", {.steps = kGpt4oSteps}},
    {"minimax-m2", {.steps = kGpt4oSteps}},
    {"granite-embed-multi-97m", {.steps = kGraniteMultilingualSteps, .whole_words = true}},
    {"tiny_aya", {.steps = kTinyAyaSteps}},
    {"cohere2moe", {.steps = kTinyAyaSteps}},

    {"poro-chat", {.steps = kBloomSteps}},
    {"bloom", {.steps = kBloomSteps}},
    {"gpt3-finnish", {.steps = kBloomSteps}},
    {"viking", {.steps = kVikingSteps}},
    {"chameleon", {.steps = kChameleonSteps, .add_bos = true}},
    {"superbpe", {.steps = kSuperBpeSteps}},
    {"kimi-k2", {.steps = kKimiSteps, .merges_optional = true}},
    {"afmoe", {.steps = kAfmoeSteps}},

    {"gemma4", kGemma4Spec},
    {"granite-embed-multi-311m", kGemma4Spec},
    {"sarvam-moe", {.steps = kLineSteps, .raw = true, .blank_symbol = true}},
    {"whitespace", {.steps = kWordSteps, .raw = true}},
};

}  // namespace

const PretokenizerSpec* find_pretokenizer(std::string_view name) {
  const auto* const entry = std::ranges::find(kEntries, name, &Entry::name);
  return entry == std::end(kEntries) ? nullptr : &entry->spec;
}

std::vector<std::string_view> pretokenizer_names() {
  std::vector<std::string_view> names;
  for (const Entry& entry : kEntries) {
    if (!entry.name.empty()) names.push_back(entry.name);
  }
  return names;
}

}  // namespace ollama::tokenizer

// Reads arbitrary bytes as a Modelfile. What is read must be written so that it is read the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/log.h"
#include "store/modelfile.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ollama;
  log::set_level(log::Level::kOff);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto modelfile = store::parse_modelfile(text);
  if (!modelfile) return 0;
  const auto again = store::parse_modelfile(store::to_text(*modelfile));
  if (!again || again->commands != modelfile->commands) std::abort();
  // Not among the machine's own files.
  const auto plan = store::plan_create(*modelfile, "/nonexistent");
  for (const store::Command& command : modelfile->commands)
    (void)store::parse_version(command.value);
  return plan || !plan.error().message().empty() ? 0 : -1;
}

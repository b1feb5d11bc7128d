#include "ml/kernels/available.h"

#include <cstdint>
#include <vector>

#include "ml/kernels/targets.h"
// After it.
#include <hwy/highway.h>
#include <hwy/targets.h>

namespace ollama::ml::kernels {
namespace {

// The best of those that were compiled and that this machine has.
std::int64_t target() { return hwy::SupportedAndGeneratedTargets().front(); }

}  // namespace

bool available() { return target() != HWY_EMU128; }
const char* instruction_set() { return hwy::TargetName(target()); }

}  // namespace ollama::ml::kernels

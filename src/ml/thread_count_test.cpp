#include "ml/thread_count.h"

#include <gtest/gtest.h>

namespace ollama::ml {
namespace {

TEST(ThreadCount, IsAtLeastOne) {
  EXPECT_EQ(optimal_thread_count(OpKind::kDecode, 0, 0, CpuTopology{}), 1U);
}

}  // namespace
}  // namespace ollama::ml

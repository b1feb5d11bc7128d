#include "ml/buffer_pool.h"

#include <gtest/gtest.h>

namespace ollama::ml {
namespace {

TEST(BufferPool, GivesWhatWasAskedFor) {
  BufferPool pool;
  const Result<PooledBuffer> buffer = pool.allocate(1000);
  ASSERT_TRUE(buffer);
  EXPECT_EQ(buffer->size(), 1000U);
}

}  // namespace
}  // namespace ollama::ml

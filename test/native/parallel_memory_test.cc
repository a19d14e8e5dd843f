// parallel_for without memory for more threads. `operator new` of all native tests is the one here, which a test can make fail;
// under sanitizers, which have their own, it stays theirs.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RSKIP_TEST_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RSKIP_TEST_SANITIZED
#endif
#endif
#ifndef RSKIP_TEST_SANITIZED

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <new>
#include <vector>

#include "plan/parallel.h"

namespace {

constexpr int64_t kUnlimited = -1;
// How many more allocations of this thread succeed.
thread_local int64_t allocations_left = kUnlimited;

}  // namespace

void* operator new(size_t bytes) {
  if (allocations_left != 0) {
    if (allocations_left > 0) --allocations_left;
    if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  }
  throw std::bad_alloc();
}

void operator delete(void* memory) noexcept { std::free(memory); }

void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace rskip::test {
namespace {

TEST(ParallelFor, GoesOnWithTheThreadsThatMemoryIsThereFor) {
  std::vector<std::atomic<int>> seen(100);
  const std::function<void(int64_t)> body = [&](int64_t i) { ++seen[static_cast<size_t>(i)]; };
  for (int64_t allocations = 0; allocations < 12; ++allocations) {
    for (auto& count : seen) count = 0;
    allocations_left = allocations;
    parallel_for(5, 100, body);
    allocations_left = kUnlimited;
    for (const auto& count : seen) EXPECT_EQ(count, 1);
  }
}

}  // namespace
}  // namespace rskip::test

#endif

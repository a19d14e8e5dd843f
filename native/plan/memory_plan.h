// Where buffers lie in an arena: a pure function of their lifetimes and sizes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace rskip {

inline constexpr int64_t kArenaAlignment = 64;

// A buffer is alive from time `first` to time `last`, both included.
struct Lifetime {
  int32_t first = 0, last = 0;
  int64_t bytes = 0;
};

struct MemoryPlan {
  std::vector<int64_t> offsets;  // one per lifetime, multiples of kArenaAlignment
  int64_t bytes = 0;             // of the arena; kTooLarge when no arena can be as large
};

// Buffers whose lifetimes overlap never share a byte. Largest first, each at the lowest offset that is free for
// its whole life: near the best for the shapes of residual networks, and quick.
MemoryPlan plan_memory(const std::vector<Lifetime>& lifetimes);

}  // namespace rskip

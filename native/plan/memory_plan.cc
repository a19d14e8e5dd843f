#include "plan/memory_plan.h"

#include <algorithm>
#include <numeric>

#include "program/geometry.h"

namespace rskip {

MemoryPlan plan_memory(const std::vector<Lifetime>& lifetimes) {
  MemoryPlan plan;
  plan.offsets.assign(lifetimes.size(), 0);
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  const auto rounded = [&](size_t i) {
    return saturating_add(lifetimes[i].bytes, kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  };
  std::vector<size_t> placed;  // sorted by offset
  for (const size_t i : order) {
    const Lifetime& life = lifetimes[i];
    if (life.bytes == 0) continue;
    int64_t offset = 0;
    for (const size_t j : placed) {
      const Lifetime& other = lifetimes[j];
      if (other.last < life.first || other.first > life.last) continue;
      if (plan.offsets[j] >= saturating_add(offset, rounded(i))) break;  // the gap before it is large enough
      offset = std::max(offset, saturating_add(plan.offsets[j], rounded(j)));
    }
    plan.offsets[i] = offset;
    plan.bytes = std::max(plan.bytes, saturating_add(offset, rounded(i)));
    const auto at = std::lower_bound(placed.begin(), placed.end(), offset,
                                     [&](size_t j, int64_t value) { return plan.offsets[j] < value; });
    placed.insert(at, i);
  }
  return plan;
}

}  // namespace rskip

#include "plan/memory_plan.h"

#include <algorithm>
#include <numeric>

#include "program/geometry.h"

namespace rskip {
namespace {

// Placed buffers by the times at which they are alive, so that those of other times need not be looked at: thousands of
// steps have thousands of buffers, most of them with short lives.
class Placed {
  struct ByOffset {
    const std::vector<int64_t>& offsets;
    bool operator()(size_t a, size_t b) const { return offsets[a] < offsets[b]; }
  };

 public:
  Placed(const std::vector<Lifetime>& lifetimes, const std::vector<int64_t>& offsets)
      : lifetimes_(lifetimes), offsets_(offsets) {
    int32_t end = 0;
    for (const Lifetime& life : lifetimes) end = std::max(end, life.last);
    slots_.resize(slot_of(end) + 1);
  }

  void add(size_t i) {
    const size_t first = slot_of(lifetimes_[i].first), last = slot_of(lifetimes_[i].last);
    if (last - first >= kMostSlots) {
      long_.insert(std::upper_bound(long_.begin(), long_.end(), i, ByOffset{offsets_}), i);
    } else {
      for (size_t slot = first; slot <= last; ++slot) slots_[slot].push_back(i);
    }
  }

  // Calls `visit` with those that are alive with `life`, by offset, until it returns false.
  template <class Visit>
  void beside(const Lifetime& life, Visit visit) const {
    const auto together = [&](size_t i) {
      return lifetimes_[i].first <= life.last && life.first <= lifetimes_[i].last;
    };
    std::vector<size_t> found;
    const size_t begin = slot_of(life.first);
    for (size_t slot = begin; slot <= slot_of(life.last); ++slot) {
      for (const size_t i : slots_[slot]) {
        // Counted once: in the first slot that both have.
        if (slot == std::max(begin, slot_of(lifetimes_[i].first)) && together(i)) found.push_back(i);
      }
    }
    std::sort(found.begin(), found.end(), ByOffset{offsets_});
    auto next = found.begin();
    for (const size_t i : long_) {
      if (!together(i)) continue;
      for (; next != found.end() && offsets_[*next] < offsets_[i]; ++next) {
        if (!visit(*next)) return;
      }
      if (!visit(i)) return;
    }
    while (next != found.end() && visit(*next)) ++next;
  }

 private:
  static constexpr int32_t kSlotTime = 64;
  static constexpr size_t kMostSlots = 4;
  static size_t slot_of(int32_t time) { return static_cast<size_t>(time / kSlotTime); }

  const std::vector<Lifetime>& lifetimes_;
  const std::vector<int64_t>& offsets_;
  std::vector<std::vector<size_t>> slots_;  // of short lives, which may be in several
  std::vector<size_t> long_;                // by offset
};

}  // namespace

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
  Placed placed(lifetimes, plan.offsets);
  for (const size_t i : order) {
    const Lifetime& life = lifetimes[i];
    if (life.bytes == 0) continue;
    int64_t offset = 0;
    placed.beside(life, [&](size_t j) {
      if (plan.offsets[j] >= saturating_add(offset, rounded(i))) return false;  // the gap before it is large enough
      offset = std::max(offset, saturating_add(plan.offsets[j], rounded(j)));
      return true;
    });
    plan.offsets[i] = offset;
    plan.bytes = std::max(plan.bytes, saturating_add(offset, rounded(i)));
    placed.add(i);
  }
  return plan;
}

}  // namespace rskip

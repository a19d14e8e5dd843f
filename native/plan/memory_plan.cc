#include "plan/memory_plan.h"

#include <algorithm>
#include <numeric>

#include "program/geometry.h"

namespace rskip {
namespace {

// Placed buffers by the times at which they are alive, so that those of other times need not be looked at: thousands of
// steps have thousands of buffers, most of them with short lives.
class Placed {
 public:
  struct Buffer {
    int32_t first, last;  // times
    int64_t offset, end;
  };

  explicit Placed(int32_t end) : slots_(slot_of(end) + 1) {}

  void add(const Buffer& buffer) {
    const size_t first = slot_of(buffer.first), last = slot_of(buffer.last);
    if (last - first >= kMaxSlots) {
      long_.insert(std::upper_bound(long_.begin(), long_.end(), buffer, by_offset), buffer);
    } else {
      for (size_t slot = first; slot <= last; ++slot) slots_[slot].push_back(buffer);
    }
  }

  // Calls `visit` with those that are alive between `first` and `last`, by offset, until it returns false.
  template <class Visit>
  void beside(int32_t first, int32_t last, Visit visit) const {
    const auto together = [&](const Buffer& other) { return other.first <= last && first <= other.last; };
    std::vector<Buffer> found;
    const size_t begin = slot_of(first);
    for (size_t slot = begin; slot <= slot_of(last); ++slot) {
      for (const Buffer& other : slots_[slot]) {
        // Counted once: in the first slot that both have.
        if (slot == std::max(begin, slot_of(other.first)) && together(other)) found.push_back(other);
      }
    }
    std::sort(found.begin(), found.end(), by_offset);
    auto next = found.begin();
    for (const Buffer& other : long_) {
      if (!together(other)) continue;
      for (; next != found.end() && next->offset < other.offset; ++next) {
        if (!visit(*next)) return;
      }
      if (!visit(other)) return;
    }
    while (next != found.end() && visit(*next)) ++next;
  }

 private:
  static constexpr int32_t kSlotTime = 64;
  static constexpr size_t kMaxSlots = 4;
  static size_t slot_of(int32_t time) { return static_cast<size_t>(time / kSlotTime); }
  static bool by_offset(const Buffer& a, const Buffer& b) { return a.offset < b.offset; }

  std::vector<std::vector<Buffer>> slots_;  // of short lives, which may be in several
  std::vector<Buffer> long_;                // by offset
};

}  // namespace

MemoryPlan plan_memory(const std::vector<Lifetime>& lifetimes) {
  MemoryPlan plan;
  plan.offsets.assign(lifetimes.size(), 0);
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  int32_t end = 0;
  for (const Lifetime& life : lifetimes) end = std::max(end, life.last);
  Placed placed(end);
  for (const size_t i : order) {
    const auto& [first, last, bytes] = lifetimes[i];
    if (bytes == 0) continue;
    const int64_t rounded = saturating_add(bytes, kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
    int64_t offset = 0;
    placed.beside(first, last, [&](const Placed::Buffer& other) {
      if (other.offset >= saturating_add(offset, rounded)) return false;  // the gap before it is large enough
      offset = std::max(offset, other.end);
      return true;
    });
    plan.offsets[i] = offset;
    plan.bytes = std::max(plan.bytes, saturating_add(offset, rounded));
    placed.add({first, last, offset, saturating_add(offset, rounded)});
  }
  return plan;
}

}  // namespace rskip

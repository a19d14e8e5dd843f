// The memory that the threads of a pool work in: who gets which, how much there is in all, and when it is given back.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "plan/workspace.h"

namespace rskip {

// How long memory that nobody needs is kept.
inline constexpr std::chrono::milliseconds kKeepMemory{5000};

// Bytes that the workspaces of a pool may hold.
struct MemoryLimits {
  int64_t item = std::numeric_limits<int64_t>::max();   // for one item and the threads that share its layers
  int64_t items = std::numeric_limits<int64_t>::max();  // for several items at a time; at most `item`
};

// Bytes of a workspace.
struct WorkspaceNeed {
  size_t arena = 0, scratch = 0;
};

// Used with the pool's mutex held, but for Pooled::prepare().
class Workspaces {
 public:
  using Clock = std::chrono::steady_clock;
  class Pooled : public Workspace {
   public:
    // Frees what is to go. Without the mutex, before anything is reserved.
    void prepare() { discarded_.clear(); }

   private:
    friend class Workspaces;
    std::vector<AlignedBuffer> discarded_;  // takes no memory: what it has no room for is freed at once
    int64_t promised_ = 0;                  // bytes that it may hold while it is in use
    WorkspaceNeed needed_;                  // the most since `since_`
    Clock::time_point since_, used_;
  };

  Workspaces(int count, MemoryLimits limits, std::chrono::milliseconds keep);

  // Whether there is memory for one more: a leader begins another item, a helper joins one. The first item always fits.
  bool fits_item(const WorkspaceNeed& need) const { return used_ == 0 || used_ + total(need) <= limits_.items; }
  bool fits_helper(const WorkspaceNeed& need) const { return used_ + total(need) <= limits_.item; }
  // There must be one that nobody uses. Its buffers have to be reserved up to `need`, and no further.
  std::unique_ptr<Pooled> take(const WorkspaceNeed& need);
  void put_back(std::unique_ptr<Pooled> workspace);

  // When memory that nobody uses should be given back; none if there is no such memory.
  std::optional<Clock::time_point> expiry() const;
  // A workspace whose memory should be given back, which prepare() does; null if there is none.
  std::unique_ptr<Pooled> take_expired();

  // Held by those that nobody uses, and at most by the others.
  int64_t bytes() const { return used_ + idle_; }

 private:
  static int64_t total(const WorkspaceNeed& need) { return static_cast<int64_t>(need.arena + need.scratch); }
  static int64_t held(const Workspace& w) { return static_cast<int64_t>(w.arena.bytes() + w.scratch.bytes()); }
  // Frees the buffers of `from` that are larger than `need`, once `by` is prepared.
  static void discard(Pooled& from, const WorkspaceNeed& need, Pooled& by);

  const MemoryLimits limits_;
  const std::chrono::milliseconds keep_;
  // That nobody uses. The one used last is taken first: it is in a cache, maybe of a core that another worker has now.
  std::vector<std::unique_ptr<Pooled>> unused_;
  int64_t used_ = 0, idle_ = 0;  // bytes
};

}  // namespace rskip

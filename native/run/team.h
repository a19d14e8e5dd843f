// Threads that share the layers of one item: the leader, who executes the item, and its helpers of the moment.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "plan/workspace.h"

namespace rskip {

class WorkerPool;

// Does the part-th of `parts` shares of a task, on the thread that owns `workspace`.
using PartFn = void (*)(void* task, Workspace& workspace, int part, int parts);

// Every member has a seat, the leader the first, and takes the part of its seat if that is free: it then works on the
// same share of every layer, whose data is in its core's cache. Nobody waits for a late member: whoever is idle takes its
// part.
//
// Teams live as long as the pool, so a late helper never touches a dead one; it can only take a part of the layer that
// is published at that moment.
//
// Invariants, asserted:
// * No two members have the same seat.
// * helpers_ + called_ <= max_helpers_ < kSeats while a unit is under way.
// * A layer has at most kSeats parts.
class Team {
 public:
  static constexpr int kSeats = 32;

  // How many shares to make of a layer, at most kSeats: one for each member that is here or on its way. Wakes workers
  // that may help. Called by the leader, as is split().
  int call();
  // Returns when fn(task, ...) has done all `parts`, at most kSeats.
  void split(PartFn fn, void* task, Workspace& leader, int parts);

 private:
  friend class WorkerPool;
  explicit Team(WorkerPool& pool) : pool_(pool) {}

  // By the pool, with its mutex held.
  void open(size_t scratch_bytes, int max_helpers);
  void close();
  bool has_room() const { return helpers_.load(std::memory_order_relaxed) < max_helpers_.load(std::memory_order_relaxed); }
  // Returns how many more helpers are on their way now.
  int set_called(int helpers);
  // Returns the helper's seat. Requires has_room(). Answers one call, if there is any.
  int join();
  void leave(int seat);

  // By a helper, without the mutex: takes parts until there has been none for a while, the unit ends, or the pool wants
  // its helpers back.
  void help(Workspace& workspace, int seat);
  bool take_part(Workspace& workspace, int seat);

  WorkerPool& pool_;
  // Changed with the pool's mutex held.
  std::atomic<int> helpers_{0};
  std::atomic<int> called_{0};  // helpers that were called and have not joined yet
  std::atomic<int> max_helpers_{0};
  std::atomic<bool> open_{false};
  std::atomic<size_t> scratch_bytes_{0};
  uint32_t seats_ = 1;  // taken, a bit each; guarded by the pool's mutex

  // What a member needs to begin is in one cache line, and what it reports is in another: lines that move between cores
  // at every layer cost as much as some rows of pixels.
  // `work_`: epoch (32 bits) | parts that are taken or don't exist (32 bits).
  alignas(64) std::atomic<uint64_t> work_{~uint64_t{0} >> 32};
  // Written by the leader while no part can be taken, read by members that have taken one.
  PartFn fn_ = nullptr;
  void* task_ = nullptr;
  int parts_ = 0;
  uint32_t goal_ = 0;
  // Parts done in all, without the leader's first; `goal_` when those published are done. Both wrap around.
  alignas(64) std::atomic<uint32_t> done_{0};
};

}  // namespace rskip

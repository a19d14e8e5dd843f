// Workers that share the layers of one item: its leader, who executes it, and the helpers of the moment.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "engine/aligned_buffer.h"

namespace rskip {

class WorkerPool;

// Memory of one executing thread.
struct Workspace {
  AlignedBuffer arena;    // of the unit that this thread leads
  AlignedBuffer scratch;  // of single kernel calls
};

// Does the part-th of `parts` shares of a task, on a thread that owns `workspace`.
using PartFn = void (*)(void* task, Workspace& workspace, int part, int parts);

// Every member has a seat, the leader the first, and takes the part of its seat if it can: so it works on the same
// share of every layer, whose data is in its core's cache. Nobody waits for a member that is late: its part is taken by
// whoever has nothing to do, and it finds another when it comes.
//
// Teams live as long as the pool, so a late helper never touches a dead one; it can only take a part of the work that
// is published at that moment.
class Team {
 public:
  static constexpr int kSeats = 32;

  // How many shares to make of a layer, at most kSeats: one for each member that is here or on its way. Asks workers
  // that sleep to come. Called by the leader, as is split().
  int call();
  // Returns when fn(task, ...) has done all `parts`, at most kSeats.
  void split(PartFn fn, void* task, Workspace& leader, int parts);

 private:
  friend class WorkerPool;
  explicit Team(WorkerPool& pool) : pool_(pool) {}
  void open(size_t scratch_bytes, int max_helpers);
  void close();
  // With the pool's mutex held, as are join() and leave(). Whether another helper may join.
  bool has_room() const { return helpers_.load(std::memory_order_relaxed) < max_helpers_.load(std::memory_order_relaxed); }
  // Returns the helper's seat, which no other member has. Requires has_room(). Answers one call, if there is any.
  int join();
  void leave(int seat);
  // Takes parts until there has been nothing for a while, the team closes, or the pool wants its helpers back.
  void help(Workspace& workspace, int seat);
  bool take_part(Workspace& workspace, int seat);

  WorkerPool& pool_;
  // Changed with the pool's mutex held, while open: helpers_ + asked_ <= max_helpers_ < kSeats.
  std::atomic<int> helpers_{0};
  std::atomic<int> asked_{0};  // helpers that were asked to come and haven't yet
  std::atomic<int> max_helpers_{0};
  std::atomic<bool> open_{false};
  std::atomic<size_t> scratch_bytes_{0};
  uint32_t seats_ = 1;  // taken, a bit each; guarded by the pool's mutex

  // What a member needs to begin lies in one cache line, and it reports in another: what moves between cores at every
  // layer costs as much as some rows of pixels.
  // `work_`: epoch (32 bits) | parts that are taken or don't exist (32 bits).
  alignas(64) std::atomic<uint64_t> work_{~uint64_t{0} >> 32};
  // Written by the leader while no part can be taken, read by who has taken one.
  PartFn fn_ = nullptr;
  void* task_ = nullptr;
  int parts_ = 0;
  uint32_t goal_ = 0;
  // Parts done in all, but for the leader's first; `goal_` when those published are. Both start anew after 2^32.
  alignas(64) std::atomic<uint32_t> done_{0};
};

}  // namespace rskip

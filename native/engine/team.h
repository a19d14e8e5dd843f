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

// The part-th of `parts` shares of doing something with something, on a thread that owns `workspace`.
using PartFn = void (*)(const void* what, void* with, Workspace& workspace, int part, int parts);

// Every member has a seat, the leader the first, and takes the part of its seat if it can: so it works on the same
// share of every layer, whose data is in its core's cache. Nobody waits for a member that is late: its part is taken by
// whoever has nothing to do, and it finds another when it comes.
//
// Teams live as long as the pool, so a late helper never touches a dead one; it can only take a part of the work that
// is published at that moment.
class Team {
 public:
  static constexpr int kSeats = 32;

  // How many shares to make of a layer: one for each member that is here or on its way. Asks workers that sleep to
  // come. Called by the leader, as is split().
  int call();
  // Returns when fn(what, with, ...) has done all `parts`, at most kSeats.
  void split(PartFn fn, const void* what, void* with, Workspace& leader, int parts);

 private:
  friend class WorkerPool;
  explicit Team(WorkerPool& pool) : pool_(pool) {}
  void open(size_t scratch_bytes, int max_helpers);
  void close();
  // With the pool's mutex held. join() returns the helper's seat; should all be taken, the last one is shared.
  int join();
  void leave(int seat);
  // Takes parts until there has been nothing for a while, the team closes, or the pool wants its helpers back.
  void help(Workspace& workspace, int seat);
  bool take_part(Workspace& workspace, int seat);

  WorkerPool& pool_;
  std::atomic<int> helpers_{0};
  // Helpers that were asked to come and haven't yet. Changed with the pool's mutex held.
  std::atomic<int> asked_{0};
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
  const void* what_ = nullptr;
  void* with_ = nullptr;
  int parts_ = 0;
  uint32_t goal_ = 0;
  // Parts done in all, but for the leader's first; `goal_` when those published are. Both start anew after 2^32.
  alignas(64) std::atomic<uint32_t> done_{0};
};

}  // namespace rskip

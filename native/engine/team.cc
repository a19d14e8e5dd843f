#include "engine/team.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <chrono>
#include <mutex>
#include <new>

#include "engine/spin.h"
#include "engine/stall.h"
#include "engine/worker_pool.h"

namespace rskip {
namespace {

// Longer than layers that are not shared and than shares differ, shorter than a time slice.
constexpr std::chrono::microseconds kPatience{100};

constexpr uint32_t epoch_of(uint64_t work) { return static_cast<uint32_t>(work >> 32); }
constexpr uint32_t free_of(uint64_t work) { return ~static_cast<uint32_t>(work); }

}  // namespace

int Team::call() {
  const int most = max_helpers_.load(std::memory_order_relaxed);
  int helpers = helpers_.load(std::memory_order_relaxed);
  if (helpers >= most) return 1 + helpers;
  int more = std::min(pool_.spare(), most - helpers);
  stall(StallPoint::kCallsHelp);
  if (asked_.load(std::memory_order_relaxed) < more) {
    std::unique_lock lock(pool_.mutex_);
    // Helpers may have come since.
    helpers = helpers_.load(std::memory_order_relaxed);
    more = std::min(pool_.spare(), most - helpers);
    const int64_t sleepers = pool_.call_workers(more - asked_.exchange(more, std::memory_order_relaxed));
    lock.unlock();
    pool_.wake(sleepers);
  }
  return 1 + helpers + more;
}

void Team::split(PartFn fn, void* task, Workspace& leader, int parts) {
  if (parts == 1) return fn(task, leader, 0, 1);
  assert(parts > 1 && parts <= kSeats);
  fn_ = fn;
  task_ = task;
  parts_ = parts;
  const uint32_t goal = goal_ += static_cast<uint32_t>(parts) - 1;
  // The leader's own part is taken from the start.
  const uint32_t taken = 1 | (parts == kSeats ? 0 : ~uint32_t{0} << parts);
  const uint64_t epoch = epoch_of(work_.load(std::memory_order_relaxed)) + 1;
  work_.store(epoch << 32 | taken, std::memory_order_release);
  stall(StallPoint::kPublished);
  fn(task, leader, 0, parts);
  const auto reached = [&] { return done_.load(std::memory_order_acquire) == goal; };
  while (!reached() && take_part(leader, 0)) {
  }
  if (spin(kPatience, reached)) return;
  for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != goal;) {
    done_.wait(done, std::memory_order_acquire);
  }
}

bool Team::take_part(Workspace& workspace, int seat) {
  uint64_t work = work_.load(std::memory_order_acquire);
  for (uint32_t free; (free = free_of(work)) != 0;) {
    // A helper that was held up may find another unit under way, which needs more than it has reserved. `work` was
    // published after the unit's need, and is still what is published if the exchange succeeds.
    if (seat != 0 && workspace.scratch.bytes() < scratch_bytes_.load(std::memory_order_relaxed)) return false;
    const int part = (free >> seat & 1) != 0 ? seat : std::countr_zero(free);
    const uint64_t bit = uint64_t{1} << part;
    stall(StallPoint::kTakesPart);
    if (!work_.compare_exchange_weak(work, work | bit, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    const uint32_t goal = goal_;  // the leader may publish the next layer as soon as it is reached
    fn_(task_, workspace, part, parts_);
    stall(StallPoint::kPartDone);
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == goal) done_.notify_one();
    return true;
  }
  return false;
}

int Team::join() {
  assert(has_room());
  const int seat = std::countr_one(seats_);
  assert(seat > 0 && seat < kSeats);
  seats_ |= uint32_t{1} << seat;
  helpers_.fetch_add(1, std::memory_order_relaxed);
  if (asked_.load(std::memory_order_relaxed) > 0) asked_.fetch_sub(1, std::memory_order_relaxed);
  return seat;
}

void Team::leave(int seat) {
  seats_ &= ~(uint32_t{1} << seat);
  helpers_.fetch_sub(1, std::memory_order_relaxed);
}

void Team::help(Workspace& workspace, int seat) {
  stall(StallPoint::kJoined);
  try {
    workspace.scratch.reserve(scratch_bytes_.load(std::memory_order_acquire));
  } catch (const std::bad_alloc&) {
    return;  // others do all parts
  }
  bool ends = false;
  const auto something = [&] {
    const bool took = take_part(workspace, seat);
    ends = !open_.load(std::memory_order_acquire) || pool_.wants_helpers_back();
    return took || ends;
  };
  while (spin(kPatience, something) && !ends) {
  }
}

void Team::open(size_t scratch_bytes, int max_helpers) {
  scratch_bytes_.store(scratch_bytes, std::memory_order_release);
  max_helpers_.store(std::min(max_helpers, kSeats - 1), std::memory_order_relaxed);
  asked_.store(0, std::memory_order_relaxed);
  open_.store(true, std::memory_order_release);
}

void Team::close() {
  open_.store(false, std::memory_order_release);
  asked_.store(0, std::memory_order_relaxed);
}

}  // namespace rskip

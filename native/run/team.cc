#include "run/team.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <new>

#include "run/pool_policy.h"
#include "run/spin.h"
#include "run/stall.h"
#include "run/worker_pool.h"

namespace rskip {
namespace {

constexpr uint32_t epoch_of(uint64_t work) { return static_cast<uint32_t>(work >> 32); }
constexpr uint32_t free_of(uint64_t work) { return ~static_cast<uint32_t>(work); }

}  // namespace

int Team::call() {
  const int most = max_helpers_.load(std::memory_order_relaxed);
  const int helpers = helpers_.load(std::memory_order_relaxed);
  if (helpers >= most) return 1 + helpers;
  const int more = std::min(pool_.policy().may_begin(), most - helpers);
  stall(StallPoint::kCallsHelp);
  if (called_.load(std::memory_order_relaxed) >= more) return 1 + helpers + more;
  return 1 + pool_.call_helpers(*this);
}

void Team::split(PartFn fn, void* task, Workspace& leader, int parts) {
  assert(parts >= 1 && parts <= kSeats);
  if (parts == 1) return fn(task, leader, 0, 1);
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
  if (spin(kSpinForLayer, reached)) return;
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

void Team::open(size_t scratch_bytes, int max_helpers) {
  scratch_bytes_.store(scratch_bytes, std::memory_order_release);
  max_helpers_.store(std::min(max_helpers, kSeats - 1), std::memory_order_relaxed);
  set_called(0);
  open_.store(true, std::memory_order_release);
}

void Team::close() {
  open_.store(false, std::memory_order_release);
  set_called(0);
}

int Team::set_called(int helpers) {
  assert(helpers >= 0 && helpers + helpers_.load(std::memory_order_relaxed) <= max_helpers_.load(std::memory_order_relaxed));
  return helpers - called_.exchange(helpers, std::memory_order_relaxed);
}

int Team::join() {
  assert(has_room());
  const int seat = std::countr_one(seats_);
  assert(seat > 0 && seat < kSeats);
  seats_ |= uint32_t{1} << seat;
  helpers_.fetch_add(1, std::memory_order_relaxed);
  if (called_.load(std::memory_order_relaxed) > 0) called_.fetch_sub(1, std::memory_order_relaxed);
  return seat;
}

void Team::leave(int seat) {
  assert((seats_ >> seat & 1) != 0);
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
  const auto took_part_or_ends = [&] {
    const bool took = take_part(workspace, seat);
    ends = !open_.load(std::memory_order_acquire) || pool_.policy().wants_helpers_back();
    return took || ends;
  };
  while (spin(kSpinForLayer, took_part_or_ends) && !ends) {
  }
}

}  // namespace rskip

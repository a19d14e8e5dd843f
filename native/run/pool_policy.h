// The decisions of a worker pool: how many threads may be busy, who spins, when helpers go back to units of their own.
// It counts threads and knows nothing of jobs; the pool carries its decisions out.
#pragma once

#include <algorithm>
#include <atomic>
#include <cassert>
#include <chrono>
#include <cstdint>

namespace rskip {

// Multiply-adds of a layer above which sharing it gains more than it costs, which is some microseconds.
inline constexpr int64_t kShareWork = 250'000;
// How long a worker spins for another unit after it has led one: long enough for the end of a run to reach the caller and
// for the caller to prepare the next run.
inline constexpr std::chrono::microseconds kSpinForUnit{200};
// How long a helper spins for the next layer: longer than layers that are not shared, shorter than a time slice.
inline constexpr std::chrono::microseconds kSpinForLayer{100};
// How long the pool's mutex is held at most, unless its holder loses the core.
inline constexpr std::chrono::microseconds kSpinForMutex{5};
// How long a background job waits before it precedes units.
inline constexpr std::chrono::milliseconds kBackgroundWait{5};

// Changed with the pool's mutex held. Const functions may be called without it; their answer may then be out of date.
class PoolPolicy {
 public:
  // `cores`: how many the process may use.
  PoolPolicy(int threads, int cores) : threads_(threads), cores_(cores) {}

  int threads() const { return threads_; }

  // A thread is busy while it executes a unit or helps. The caller of run_here() is busy until its units are done, and
  // also while it is only expected: workers leave it a core.
  void thread_begins() { busy_.fetch_add(1, std::memory_order_relaxed); }
  void thread_ends() {
    [[maybe_unused]] const int before = busy_.fetch_sub(1, std::memory_order_relaxed);
    assert(before > 0);
  }
  bool caller_is_expected() const { return caller_is_expected_; }
  void expect_caller(bool expected) {
    if (caller_is_expected_ == expected) return;
    caller_is_expected_ = expected;
    expected ? thread_begins() : thread_ends();
  }
  // How many idle workers may begin something, so that no more threads are busy than the pool has.
  int may_begin() const { return std::max(0, threads_ - busy_.load(std::memory_order_relaxed)); }

  // Units that a worker could take now.
  void set_pending(int units) { pending_.store(units, std::memory_order_relaxed); }
  // How many workers to call for them.
  int workers_for_pending() const { return std::min(pending_.load(std::memory_order_relaxed), may_begin()); }
  // A unit of its own uses a thread better than a share of a layer does, and more threads than the pool has gain nothing.
  bool wants_helpers_back() const {
    return pending_.load(std::memory_order_relaxed) > 0 || busy_.load(std::memory_order_relaxed) > threads_;
  }

  // How many helpers one unit may have.
  int max_helpers() const { return threads_ - 1; }
  // Whether an idle worker may spin while `sleeping` others sleep: a core is left for whoever brings the next work.
  bool may_spin(int sleeping) const { return threads_ - sleeping < cores_; }

 private:
  const int threads_, cores_;
  bool caller_is_expected_ = false;
  std::atomic<int> busy_{0}, pending_{0};
};

}  // namespace rskip

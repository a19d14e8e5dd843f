// How a run is asked to end early.
#pragma once

#include <atomic>
#include <cstdint>

namespace rskip {

// Thrown by work that was asked to end.
struct Cancelled {};

// Either flag may ask. Null flags never do.
struct Cancellation {
  const std::atomic<bool>* stopped = nullptr;
  const int32_t* abort_flag = nullptr;  // in memory of JavaScript: not 0 to stop

  bool requested() const {
    if (stopped != nullptr && stopped->load(std::memory_order_relaxed)) return true;
    return abort_flag != nullptr &&
           std::atomic_ref<int32_t>(*const_cast<int32_t*>(abort_flag)).load(std::memory_order_relaxed) != 0;
  }
  // Throws Cancelled.
  void check() const {
    if (requested()) throw Cancelled();
  }
};

// Polls inside a long loop, at the cost of one addition per call.
class Poll {
 public:
  explicit Poll(const Cancellation& cancellation) : cancellation_(cancellation) {}
  Poll() = default;
  // `work`: multiply-adds, or as long, that come next. Throws Cancelled.
  void before(int64_t work) {
    if ((work_ += work) < kPollWork) return;
    work_ = 0;
    cancellation_.check();
  }

 private:
  // A plain loop computes a multiply-add in about a nanosecond.
  static constexpr int64_t kPollWork = int64_t{1} << 24;
  Cancellation cancellation_;
  int64_t work_ = 0;
};

}  // namespace rskip

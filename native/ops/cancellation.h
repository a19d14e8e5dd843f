// How a run is asked to end early.
#pragma once

#include <atomic>
#include <cstdint>

#include "program/error.h"

namespace rskip {

// Either flag may ask. Null flags never do.
struct Cancellation {
  const std::atomic<bool>* stopped = nullptr;
  const int32_t* abort_flag = nullptr;  // in memory of JavaScript: not 0 to stop

  bool requested() const {
    if (stopped != nullptr && stopped->load(std::memory_order_relaxed)) return true;
    return abort_flag != nullptr &&
           std::atomic_ref<int32_t>(*const_cast<int32_t*>(abort_flag)).load(std::memory_order_relaxed) != 0;
  }
  // Throws EngineError(kAborted).
  void check() const {
    if (requested()) throw EngineError(ErrorCode::kAborted, "The run was aborted.");
  }
};

// Multiply-adds, or as long, after which a step polls: some milliseconds with SIMD, less than a second in plain loops.
inline constexpr int64_t kPollWork = int64_t{1} << 29;

// Polls inside a long loop, at a cost of an addition a call.
class Poll {
 public:
  explicit Poll(const Cancellation& cancellation) : cancellation_(cancellation) {}
  Poll() = default;
  // `work`: multiply-adds that come next. Throws EngineError(kAborted).
  void before(int64_t work) {
    if ((work_ += work) < kLoopWork) return;
    work_ = 0;
    cancellation_.check();
  }

 private:
  // Plain loops compute a multiply-add in about a nanosecond.
  static constexpr int64_t kLoopWork = int64_t{1} << 24;
  Cancellation cancellation_;
  int64_t work_ = 0;
};

}  // namespace rskip

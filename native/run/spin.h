// Waiting without sleep, for what comes sooner than waking up takes.
#pragma once

#include <chrono>
#include <thread>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace rskip {

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Asks again and again whether `ready()`, for at most `limit`; the answer to the last question. What doesn't come at once
// may need this very core, which others, such as threads that collect garbage, therefore get in between.
template <class Ready>
bool spin(std::chrono::microseconds limit, const Ready& ready) {
  using Clock = std::chrono::steady_clock;
  // Instructions to pause last from one cycle to some 150, by CPU; a clock tells how long it has been.
  constexpr int kBetweenClocks = 32;
  const auto ask = [&] {
    for (int i = 0; i < kBetweenClocks; ++i) {
      if (ready()) return true;
      relax();
    }
    return false;
  };
  if (ask()) return true;
  constexpr std::chrono::microseconds kBetweenYields{10};
  const auto start = Clock::now();
  auto yield_at = start + kBetweenYields;
  for (auto now = start; now - start < limit; now = Clock::now()) {
    if (ask()) return true;
    if (now < yield_at) continue;
    std::this_thread::yield();
    yield_at = now + kBetweenYields;
  }
  return false;
}

}  // namespace rskip

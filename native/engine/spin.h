// Waiting without sleep, for what comes sooner than waking up takes.
#pragma once

#include <chrono>

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

// Asks again and again whether `ready()`, for at most `limit`; the answer to the last question.
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
  for (const auto end = Clock::now() + limit; Clock::now() < end;) {
    if (ask()) return true;
  }
  return false;
}

}  // namespace rskip

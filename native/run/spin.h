// Waiting without sleeping, for what happens sooner than a thread wakes up.
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

// Calls ready() until it is true, for at most `limit`; returns its last answer. Yields now and then: whoever is to make it
// true may need this core.
template <class Ready>
bool spin(std::chrono::microseconds limit, const Ready& ready) {
  using Clock = std::chrono::steady_clock;
  // A pause lasts from one cycle to 150, depending on the CPU, so a clock measures the time.
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

// The floating-point environment of kernels: IEEE 754 with gradual underflow, round to nearest, no traps.
// Flushing denormals would be faster where they occur, but x86 and ARM detect tininess at different points, and
// results must be the same bits everywhere.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace rskip {

// Sets the mode on this thread and restores what was there.
class FpModeScope {
 public:
  FpModeScope() : saved_(read()) { write(kDefault); }
  ~FpModeScope() { write(saved_); }
  FpModeScope(const FpModeScope&) = delete;
  FpModeScope& operator=(const FpModeScope&) = delete;

 private:
#if defined(__x86_64__) || defined(_M_X64)
  using Word = uint32_t;
  static constexpr Word kDefault = 0x1f80;  // all exceptions masked; no FTZ, no DAZ
  static Word read() { return _mm_getcsr(); }
  static void write(Word w) { _mm_setcsr(w); }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static constexpr Word kDefault = 0;  // no FZ, no FZ16, no DN
  static Word read() {
    Word w;
    __asm__ volatile("mrs %0, fpcr" : "=r"(w));
    return w;
  }
  static void write(Word w) { __asm__ volatile("msr fpcr, %0" : : "r"(w)); }
#else
  using Word = int;
  static constexpr Word kDefault = 0;
  static Word read() { return 0; }
  static void write(Word) {}
#endif
  Word saved_;
};

}  // namespace rskip

// Pairs of bfloat16 beside vec_avx512-inl.h, with AVX512_BF16. The interface is that of pairs_scalar-inl.h.
#pragma once

#include "kernels/bfloat16/pack16.h"

namespace rskip::RSKIP_ISA {

struct Pair {
  float bits;
};
struct Pairs {
  __m512 v;
};
RSKIP_INLINE Pairs load_weights(const Pair* w) { return {_mm512_loadu_ps(&w->bits)}; }
RSKIP_INLINE Vec to_pairs(Vec first, Vec second) {
  return {_mm512_castsi512_ps(reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v)))};
}
// The operand is broadcast from memory: nothing else keeps the ports of loads busy.
template <int N>
RSKIP_INLINE void add_products(Vec (&sum)[N], const float* x, const Pairs (&factor)[N]) {
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) {
    __asm__("vdpbf16ps %1%{1to16%}, %2, %0" : "+v"(sum[n].v) : "m"(*x), "v"(factor[n].v));
  }
}

// The instruction has a mode of its own.
template <int P, int N>
RSKIP_INLINE uint32_t begin_sums(Vec (&)[P][N]) {
  return 0;
}
template <int P, int N>
RSKIP_INLINE void end_sums(Vec (&)[P][N], uint32_t) {}

}  // namespace rskip::RSKIP_ISA
